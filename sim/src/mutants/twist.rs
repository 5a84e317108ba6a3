//! A core with something wrong around it.

use std::collections::VecDeque;

use gapless::Core;
use gapless::recovery::Instant;

/// What is wrong. The defaults change nothing.
pub(super) trait Twist<C: Core>: Send + 'static {
    /// An input is on its way to the core.
    fn input(&mut self, now: Instant, input: C::Input, hands: &mut Hands<C>) {
        let _ = now;
        hands.inputs.push_back(input);
    }

    /// An output of the core is on its way to the driver.
    fn output(&mut self, output: C::Output, hands: &mut Hands<C>) {
        hands.outputs.push_back(output);
    }

    /// The core has nothing more to say for now.
    fn drained(&mut self, hands: &mut Hands<C>) {
        let _ = hands;
    }

    /// When the twist itself wants to be called.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// What the core is to be fed next, and what the driver is to do next.
pub(super) struct Hands<C: Core> {
    pub(super) inputs: VecDeque<C::Input>,
    pub(super) outputs: VecDeque<C::Output>,
}

/// A core and what is wrong with it.
pub(super) struct Twisted<C: Core, T> {
    core: C,
    twist: T,
    hands: Hands<C>,
}

impl<C: Core, T: Twist<C>> Twisted<C, T> {
    pub(super) fn boxed(core: C, twist: T) -> Box<dyn Core<Input = C::Input, Output = C::Output>> {
        let hands = Hands { inputs: VecDeque::new(), outputs: VecDeque::new() };
        Box::new(Self { core, twist, hands })
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll() {
            self.twist.output(output, &mut self.hands);
        }
    }
}

impl<C: Core, T: Twist<C>> Core for Twisted<C, T> {
    type Input = C::Input;
    type Output = C::Output;

    fn handle(&mut self, now: Instant, input: C::Input) {
        self.twist.input(now, input, &mut self.hands);
        while let Some(input) = self.hands.inputs.pop_front() {
            self.core.handle(now, input);
            self.drain();
        }
        self.twist.drained(&mut self.hands);
    }

    fn poll(&mut self) -> Option<C::Output> {
        // What a core wants before its first input.
        self.drain();
        self.hands.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        [self.core.deadline(), self.twist.deadline()].into_iter().flatten().min()
    }
}
