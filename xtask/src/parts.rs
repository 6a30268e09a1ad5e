//! The parts of the tests that are run by themselves.

use std::collections::BTreeSet;

use crate::needs::Need;
use crate::workspace::{Package, TestProgram, Workspace};
use crate::{Result, checks, loom};

/// Some tests, and no more of the workspace than they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// What `cargo test` is told. Its tests start the servers that they ask for by themselves.
    cargo: &'static str,
    /// What is run besides Rust and a C compiler, which every part takes.
    needs: &'static [Need],
}

/// Every test of the workspace is in one of them.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "core", cargo: "-p claviger", needs: &[] },
    // Built with loom's types, in a folder of its own.
    Part { name: loom::PART, cargo: "-p claviger --lib models::", needs: &[] },
    Part { name: "memory", cargo: "-p claviger-memory", needs: &[] },
    Part { name: "sqlite", cargo: "-p claviger-metastore --features sqlite", needs: &[] },
    Part {
        name: "postgres",
        cargo: "-p claviger-metastore --features postgres",
        needs: &[Need::Postgres, Need::OpenSsl],
    },
    Part {
        name: "mysql",
        cargo: "-p claviger-metastore --features mysql",
        needs: &[Need::MariaDb, Need::AsherahRust, Need::AsherahGo],
    },
    Part {
        name: "dynamodb",
        cargo: "-p claviger-metastore --features dynamodb",
        needs: &[Need::Dynalite, Need::Moto],
    },
    Part {
        name: "clusters",
        cargo: "-p claviger-metastore --features mysql,postgres --test clusters",
        needs: &[Need::Postgres, Need::PgBouncer, Need::NewerPgBouncer, Need::MariaDb, Need::Galera],
    },
    Part {
        name: "faults",
        cargo: "-p claviger-metastore --features dynamodb,mysql,postgres,sqlite --test distributed --test faults",
        needs: &[Need::Postgres, Need::MariaDb, Need::Dynalite, Need::Moto],
    },
    Part { name: "simulation", cargo: "-p claviger-simulation", needs: &[] },
    Part { name: "model", cargo: "-p claviger-model", needs: &[] },
    Part { name: "local", cargo: "-p claviger-kms --features local", needs: &[] },
    Part {
        name: "aws",
        cargo: "-p claviger-aws -p claviger-kms --features claviger-kms/aws",
        needs: &[
            Need::MariaDb,
            Need::OpenSsl,
            Need::AsherahRust,
            Need::AsherahGo,
            Need::Moto,
            Need::LocalStack,
        ],
    },
    Part { name: "pkcs11", cargo: "-p claviger-kms --features pkcs11", needs: &[Need::SoftHsm] },
    Part { name: "vault", cargo: "-p claviger-kms --features vault", needs: &[Need::OpenSsl] },
    Part { name: "several", cargo: "-p claviger-kms --features any-of,k-of-n", needs: &[] },
    Part {
        name: "drills",
        cargo: "-p claviger-kms --features any-of,aws,k-of-n,local,pkcs11 --test drills",
        needs: &[Need::Moto, Need::SoftHsm],
    },
    Part {
        name: "kms",
        cargo: "-p claviger-aws -p claviger-kms --features claviger-kms/any-of,claviger-kms/aws,\
                claviger-kms/k-of-n,claviger-kms/local,claviger-kms/pkcs11,claviger-kms/vault",
        needs: &[
            Need::MariaDb,
            Need::OpenSsl,
            Need::AsherahRust,
            Need::AsherahGo,
            Need::Moto,
            Need::LocalStack,
            Need::SoftHsm,
        ],
    },
    Part {
        name: "open",
        cargo: "-p claviger-open --features any-of,aws,dynamodb,k-of-n,mysql,pkcs11,postgres,sqlite,vault",
        needs: &[Need::Postgres, Need::MariaDb, Need::OpenSsl, Need::Dynalite, Need::Moto, Need::SoftHsm],
    },
    // What is not built in is refused.
    Part { name: "open-bare", cargo: "-p claviger-open", needs: &[] },
    Part {
        name: "cli",
        cargo: "-p claviger-cli --features aws,dynamodb,mysql,pkcs11,postgres,vault",
        needs: &[
            Need::Postgres,
            Need::MariaDb,
            Need::OpenSsl,
            Need::Dynalite,
            Need::Moto,
            Need::LocalStack,
            Need::SoftHsm,
        ],
    },
    Part {
        name: "interop",
        cargo: "-p claviger-interop",
        needs: &[
            Need::Postgres,
            Need::MariaDb,
            Need::Dynalite,
            Need::AsherahRust,
            Need::AsherahGo,
            Need::Moto,
        ],
    },
    Part {
        name: "examples",
        cargo: "-p claviger-example-axum -p claviger-example-service",
        needs: &[Need::Postgres, Need::Promtool],
    },
    Part {
        name: "testkit",
        cargo: "-p claviger-testkit",
        needs: &[
            Need::Postgres,
            Need::PgBouncer,
            Need::NewerPgBouncer,
            Need::MariaDb,
            Need::Galera,
            Need::OpenSsl,
            Need::Dynalite,
            Need::Moto,
            Need::LocalStack,
            Need::SoftHsm,
        ],
    },
    Part { name: "xtask", cargo: "-p xtask", needs: &[Need::Postgres, Need::Python] },
];

impl Part {
    pub(crate) fn named(name: &str) -> Result<Self> {
        let part = PARTS.iter().find(|part| part.name == name);
        part.copied().ok_or_else(|| format!("there is no part {name}; see cargo xtask help").into())
    }

    pub(crate) fn cargo_args(self) -> impl Iterator<Item = &'static str> {
        self.cargo.split_whitespace()
    }

    pub(crate) fn needs(self) -> impl Iterator<Item = Need> {
        [Need::CCompiler].into_iter().chain(self.needs.iter().copied())
    }

    fn has(self, package: &Package) -> bool {
        self.after("-p").contains(&*package.name)
    }

    fn runs(self, package: &Package, program: &TestProgram) -> bool {
        let (features, programs) = (self.after("--features"), self.after("--test"));
        let is_on = |feature: &String| {
            features.contains(&**feature) || features.contains(&*format!("{}/{feature}", package.name))
        };
        self.has(package)
            && (programs.is_empty() || programs.contains(&*program.name))
            && program.required_features.iter().all(is_on)
    }

    /// Returns what follows each of this option, split at commas.
    fn after(self, option: &str) -> BTreeSet<&'static str> {
        let values = self.cargo_args().zip(self.cargo_args().skip(1));
        values.filter(|(name, _)| *name == option).flat_map(|(_, value)| value.split(',')).collect()
    }
}

/// Returns a line on each part, for the help.
pub(crate) fn overview() -> String {
    PARTS.iter().map(|part| format!("  {:<10} cargo test {}\n", part.name, part.cargo)).collect()
}

/// Checks that the parts together leave nothing out, and name nothing that is not there.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut wrong = Vec::new();
    for package in &workspace.packages {
        if !PARTS.iter().any(|part| part.has(package) && part.after("--test").is_empty()) {
            wrong.push(format!("no part runs the unit tests of {}", package.name));
        }
        let left_out = |program: &&TestProgram| !PARTS.iter().any(|part| part.runs(package, program));
        let left_out = package.test_programs.iter().filter(left_out);
        wrong.extend(left_out.map(|program| format!("no part runs {} of {}", program.name, package.name)));
    }
    for part in PARTS {
        let packages: Vec<_> = workspace.packages.iter().filter(|package| part.has(package)).collect();
        let programs = packages.iter().flat_map(|package| package.test_programs.iter());
        let features = packages.iter().flat_map(|package| {
            let full = |feature: &String| [feature.clone(), format!("{}/{feature}", package.name)];
            package.features.iter().flat_map(full)
        });
        for (option, known) in [
            ("-p", packages.iter().map(|package| package.name.clone()).collect::<BTreeSet<_>>()),
            ("--test", programs.map(|program| program.name.clone()).collect()),
            ("--features", features.collect()),
        ] {
            let unknown = part.after(option).into_iter().filter(|name| !known.contains(*name));
            wrong.extend(unknown.map(|name| format!("part {}: there is no {option} {name}", part.name)));
        }
    }
    checks::none(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_program_and_every_package_is_in_a_part() {
        let mut workspace = Workspace::find().unwrap();
        check(&workspace).unwrap();
        let metastore = workspace.packages.iter_mut().find(|package| package.name == "claviger-metastore");
        let programs = &mut metastore.unwrap().test_programs;
        programs.retain(|program| program.name != "clusters");
        programs.push(TestProgram { name: "new".to_owned(), required_features: vec!["other".to_owned()] });
        let wrong = check(&workspace).unwrap_err().to_string();
        assert_eq!(
            wrong,
            "no part runs new of claviger-metastore\npart clusters: there is no --test clusters",
        );
    }

    #[test]
    fn the_core_needs_no_server() {
        assert_eq!(Part::named("core").unwrap().needs().collect::<Vec<_>>(), [Need::CCompiler]);
        assert!(Part::named("cores").is_err());
    }
}
