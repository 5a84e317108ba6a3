//! Feeds a target with files, one after the other: `cargo run -p gapless-fuzz --example replay -- TARGET FILE…`.

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let target = gapless_fuzz::TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("there is no target `{name}`"));
    for file in arguments {
        let input = std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        (target.run)(&input);
        println!("{file} is borne");
    }
}
