#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| p2pfaas::fuzzing::run("program_answer", bytes));
