//! A device and the registry that its images come from, for tests of the ways to a new image.

use std::fs;

use crate::fake::Fake;
use crate::sandbox::{Outcome, Sandbox};

pub struct Device {
    pub fake: Fake,
    pub sandbox: Sandbox,
    /// The name of the new image, without the registry's.
    pub new: &'static str,
    /// The new image.
    pub image: String,
}

impl Device {
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.fake.authority)
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let words = arguments.join(" ");
        self.sandbox.shell(&format!("VAQUITA_FIRST_WAIT_MS=2 exec vaquita {words}"), &[])
    }

    pub fn done(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, 0, "{arguments:?}: {outcome:?}");
        outcome.stdout
    }

    /// Loads an archive and pushes what it names.
    pub fn publish(&self, archive: &str, name: &str) {
        self.done(&["load", "-q", "-i", archive]);
        self.done(&["push", "-q", &self.name(name)]);
    }

    /// A pull of the new image; then it is here, whole, and nothing half-made.
    pub fn pull(&self, options: &[&str], context: &str) -> Outcome {
        let name = self.name(self.new);
        let outcome = self.run(&[&["pull"], options, &[name.as_str()]].concat());
        assert_eq!(outcome.code, 0, "{context}: {outcome:?}");
        let images = self.done(&["images", "-q", "--no-trunc"]);
        assert!(images.contains(&self.image), "{context}: {images}");
        self.done(&["check", "--deep"]);
        let stages = fs::read_dir(self.sandbox.data_root().join("stages")).unwrap();
        assert_eq!(stages.count(), 0, "{context}");
        outcome
    }

    pub fn requests(&self, part: &str) -> usize {
        self.fake.state().requests.iter().filter(|request| request.contains(part)).count()
    }
}
