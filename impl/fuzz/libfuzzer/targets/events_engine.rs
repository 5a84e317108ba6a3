#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gapless_fuzz::events_engine(data));
