//! How many tests passed, as the programs say.

use std::ops::AddAssign;
use std::process::ExitStatus;

use crate::Result;

/// How many tests there were, over all test programs and doc tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// The programs that failed, and how they ended: one that crashes counts no tests, or fails though all of
    /// them passed.
    broken: Vec<String>,
}

impl Summary {
    /// Prints the sum, alone on a line, and errs unless all tests ran and passed.
    pub(crate) fn verdict(&self) -> Result<()> {
        for program in &self.broken {
            println!("failed: {program}");
        }
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if !self.broken.is_empty() || self.failed > 0 {
            return Err("tests failed".into());
        }
        match (self.passed, self.ignored) {
            (0, _) => Err("no test ran".into()),
            (_, 0) => Ok(()),
            (_, ignored) => Err(format!("{ignored} tests are ignored; no test may be").into()),
        }
    }

    /// Sums what a test program wrote.
    pub(crate) fn of(written: &str) -> Self {
        let mut summary = Self::default();
        written.lines().filter_map(Self::parse).for_each(|part| summary += part);
        summary
    }

    /// Notes that a program failed, if it did.
    pub(crate) fn ended(mut self, program: &str, status: ExitStatus) -> Self {
        if !status.success() {
            self.broken.push(format!("{program}, {status}"));
        }
        self
    }

    /// Reads the line that a test program closes with.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut summary = Self::default();
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => summary.passed = number.parse().ok()?,
                Some((number, "failed")) => summary.failed = number.parse().ok()?,
                Some((number, "ignored")) => summary.ignored = number.parse().ok()?,
                _ => {}
            }
        }
        Some(summary)
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.broken.extend(other.broken);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn summary(passed: u64, failed: u64, ignored: u64) -> Summary {
        Summary { passed, failed, ignored, broken: Vec::new() }
    }

    #[test]
    fn closing_lines_are_summed() {
        let lines = "running 2 tests\n\
            test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 20 passed; 3 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.64s";
        assert_eq!(Summary::of(lines), summary(27, 3, 1));
    }

    #[test]
    fn only_a_run_in_which_all_tests_ran_and_passed_is_good() {
        assert!(summary(1, 0, 0).verdict().is_ok());
        for bad in [
            summary(0, 0, 0),
            summary(1, 1, 0),
            summary(1, 0, 1),
            summary(1, 0, 0).ended("crash", ExitStatus::from_raw(11)),
        ] {
            assert!(bad.verdict().is_err(), "{bad:?}");
        }
    }
}
