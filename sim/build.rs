//! Scenarios and specification are part of the program; a change is a reason to build it again.

fn main() {
    println!("cargo::rerun-if-changed=../scenarios");
    println!("cargo::rerun-if-changed=../docs/spec");
}
