set positional-arguments

# A seed may come first (`just SEED=42 sim`), last (`just sim SEED=42`) or from the environment.

SEED := env('SEED', '')
_seed := if SEED == '' { '' } else { '--seed ' + quote(SEED) }

# List the recipes.
[private]
default:
    @{{ just_executable() }} --list --unsorted

# Run one simulation: `just sim`, `just sim 42`, `just sim SEED=42`, `just SEED=42 sim`, `just sim --seed 42 --report out.html`.
[group('simulate')]
[no-exit-message]
@sim *args:
    cargo sim run {{ _seed }} "$@"

# Print everything that happens in a run: `just show 42`, `just show events/server-restart 1 --only client-1`.
[group('simulate')]
[no-exit-message]
@show *args:
    cargo sim show {{ _seed }} "$@"

# Make a failing plan small: `just shrink events/swarm 7 --mutant cursor-jumps`.
[group('simulate')]
[no-exit-message]
@shrink *args:
    cargo sim shrink {{ _seed }} "$@"

# Write a failing plan as a scenario: `just freeze --plan shrunk.json`.
[group('simulate')]
[no-exit-message]
@freeze *args:
    cargo sim freeze {{ _seed }} "$@"

# Say when a failing run became inevitable: `just localise 9 --mutant failure-swallowed --report failing.html`.
[group('simulate')]
[no-exit-message]
@localise *args:
    cargo sim localise {{ _seed }} "$@"

# Run many simulations on all cores: `just sweep --seeds 2000 --base 7`.
[group('simulate')]
[no-exit-message]
@sweep *args:
    cargo sim sweep "$@"

# Do what the continuous integration does each night, here: about half an hour on two cores. Another base, other seeds.
[group('simulate')]
nightly base=`git rev-parse HEAD`:
    cargo sim sweep --seeds 20000 --base {{ quote(base) }} --report target/sweep.html
    cargo sim meta --seeds 100 --seed {{ quote(base) }}
    cargo sim mutants --base {{ quote(base) }} --report target/mutants.html

# Run the known-bad variants of the implementation: each has to be caught.
[group('simulate')]
[no-exit-message]
@mutants *args:
    cargo sim mutants "$@"

# Play the scenarios against another implementation: `just conform --role events.client --adapter 'node my-adapter.mjs'`.
[group('simulate')]
[no-exit-message]
@conform *args:
    cargo sim conform "$@"

# List the scenarios: what each shows, and the statements that it is about.
[group('simulate')]
[no-exit-message]
@scenarios *args:
    cargo sim scenarios "$@"

# List the statements of the specification and what stands for each: `just statements EV-5`, `just statements --check`.
[group('simulate')]
[no-exit-message]
@statements *args:
    cargo sim statements "$@"

# Run all tests.
[group('develop')]
test *args:
    cargo test --workspace "$@"

# Fuzz a target, or all of them, two at a time: `just fuzz`, `just fuzz events_client 600`; a file instead of seconds is run again. Needs a C++ compiler.
[group('develop')]
[no-exit-message]
@fuzz target="all" seconds="60":
    bash impl/fuzz/run "$@"

# Do what the continuous integration does. It only reads.
[group('develop')]
ci:
    bash .ci/run

# Format, and apply the fixes that clippy knows.
[group('develop')]
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# Look at the changed snapshots one by one (needs `cargo install cargo-insta`).
[group('develop')]
review:
    cargo insta review

# Build the documentation of the library and of the simulator.
[group('develop')]
docs:
    cargo doc --workspace --no-deps
