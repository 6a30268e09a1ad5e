//! How many tests passed, as the programs say.

use std::ops::AddAssign;

use crate::Result;

/// How many tests there were, over all test programs and doc tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// One that crashes, or has a main of its own, counts no tests.
    pub(crate) a_program_failed: bool,
}

impl Summary {
    /// Prints the sum, alone on a line, and errs unless all tests ran and passed.
    pub(crate) fn verdict(self) -> Result<()> {
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if self.a_program_failed || self.failed > 0 {
            return Err("tests failed".into());
        }
        match (self.passed, self.ignored) {
            (0, _) => Err("no test ran".into()),
            (_, 0) => Ok(()),
            (_, ignored) => Err(format!("{ignored} tests are ignored; no test may be").into()),
        }
    }

    /// Sums what a test program wrote.
    pub(crate) fn of(written: &str, succeeded: bool) -> Self {
        let mut summary = Self { a_program_failed: !succeeded, ..Self::default() };
        written.lines().filter_map(Self::parse).for_each(|part| summary += part);
        summary
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
        self.a_program_failed |= other.a_program_failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(passed: u64, failed: u64, ignored: u64) -> Summary {
        Summary { passed, failed, ignored, a_program_failed: false }
    }

    #[test]
    fn closing_lines_are_summed() {
        let lines = "running 2 tests\n\
            test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 20 passed; 3 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.64s";
        assert_eq!(Summary::of(lines, true), summary(27, 3, 1));
        assert_eq!(Summary::of("", false), Summary { a_program_failed: true, ..summary(0, 0, 0) });
    }

    #[test]
    fn only_a_run_in_which_all_tests_ran_and_passed_is_good() {
        assert!(summary(1, 0, 0).verdict().is_ok());
        for bad in [
            summary(0, 0, 0),
            summary(1, 1, 0),
            summary(1, 0, 1),
            Summary { a_program_failed: true, ..summary(1, 0, 0) },
        ] {
            assert!(bad.verdict().is_err(), "{bad:?}");
        }
    }
}
