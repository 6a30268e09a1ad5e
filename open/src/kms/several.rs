//! Several services at once, which only a table can describe.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::SpecError;
use crate::fields::{Fields, TextOrTable};
use crate::kms::{KmsSpec, NAME};

/// Services each of which unwraps alone, not opened yet.
#[derive(Clone, Debug)]
pub struct AnyOfSpec {
    pub(super) members: Vec<Member>,
    pub(super) asherah_compatible: Option<bool>,
    pub(super) min_copies: Option<usize>,
    pub(super) hedge_after: Option<Duration>,
    pub(super) call_deadline: Option<Duration>,
}

/// Services some of which must unwrap together, not opened yet.
#[derive(Clone, Debug)]
pub struct KofNSpec {
    pub(super) k: u8,
    pub(super) members: Vec<Member>,
    pub(super) asherah_compatible: Option<bool>,
    pub(super) min_shares: Option<usize>,
    pub(super) previous_k: Option<u8>,
    pub(super) legacy_members: Vec<String>,
    pub(super) call_deadline: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) kms: KmsSpec,
    /// The file that describes it, if one does.
    pub(super) file: Option<PathBuf>,
}

impl AnyOfSpec {
    pub(super) fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let choice = Self {
            members: members(&mut fields)?,
            asherah_compatible: fields.truth("asherah-compatible")?,
            min_copies: fields.number("min-copies")?,
            hedge_after: fields.time("hedge-after")?,
            call_deadline: fields.time("call-deadline")?,
        };
        fields.finish()?;
        Ok(choice)
    }
}

impl KofNSpec {
    pub(super) fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let k = fields.number("k")?;
        let choice = Self {
            k: k.ok_or_else(|| fields.wrong("lacks its k; say how many members must unwrap together"))?,
            members: members(&mut fields)?,
            asherah_compatible: fields.truth("asherah-compatible")?,
            min_shares: fields.number("min-shares")?,
            previous_k: fields.number("previous-k")?,
            legacy_members: fields.texts("legacy-members")?,
            call_deadline: fields.time("call-deadline")?,
        };
        fields.finish()?;
        Ok(choice)
    }
}

fn members(fields: &mut Fields) -> Result<Vec<Member>, SpecError> {
    let members: Vec<Member> =
        fields.list("members")?.into_iter().map(Member::read).collect::<Result<_, _>>()?;
    if members.is_empty() {
        return Err(fields.wrong("lacks its members; say [[kms.members]] with name and kms for each"));
    }
    Ok(members)
}

impl Member {
    fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let name = fields.need("name", "say how copies are to be called")?;
        let (kms, file) = match fields.text_or_table("kms", "say what --kms would say, or a table")? {
            TextOrTable::Table(table) => (KmsSpec::from_fields(table)?, None),
            TextOrTable::Text(at, text) => {
                let file = text.strip_prefix('@').map(PathBuf::from);
                let kms = KmsSpec::from_reference(&text, NAME).map_err(|error| error.or_at(at))?;
                (kms, file)
            }
        };
        fields.finish()?;
        Ok(Self { name, kms, file })
    }
}
