//! AWS KMS: `aws:us-east-1=ARN,eu-west-1=ARN,preferred=us-east-1`.

use std::time::Duration;

#[cfg(feature = "aws")]
use claviger::LockPolicy;
#[cfg(feature = "aws")]
use claviger_kms::AwsKms;

use crate::endpoint::endpoint;
#[cfg(feature = "aws")]
use crate::error::OpenError;
use crate::error::SpecError;
use crate::fields::{Fields, twice};

/// Keys of AWS KMS, in one region or several, not opened yet.
#[derive(Clone, Debug)]
pub struct AwsSpec {
    /// In the order of trial after the preferred one.
    regions: Vec<Region>,
    preferred: Option<String>,
    min_regions: Option<usize>,
    hedge_after: Option<Duration>,
    pub(super) call_deadline: Option<Duration>,
    encryption_context: Option<bool>,
    accept_no_context: Option<bool>,
}

#[derive(Clone, Debug)]
struct Region {
    name: String,
    key: String,
    previous: Vec<String>,
    endpoint: Option<String>,
}

/// Takes the text apart. What no option is called is a region.
pub(super) fn fields(text: &str) -> Result<Fields, SpecError> {
    let mut fields = Fields::default();
    let mut regions = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(SpecError::wrong(&format!("has a part without its =; {USAGE}")));
        };
        match name.split_once('.') {
            Some((part @ ("previous" | "endpoint"), region)) if is_region(region) => {
                add(&mut regions, region, part, value);
            }
            _ if regions
                .iter()
                .any(|(region, fields): &(String, Fields)| region == name && fields.has("key")) =>
            {
                return Err(twice(name));
            }
            _ if is_region(name) => add(&mut regions, name, "key", value),
            _ => fields.add(name, value),
        }
    }
    fields.add_tables("regions", regions);
    Ok(fields)
}

fn add(regions: &mut Vec<(String, Fields)>, region: &str, name: &str, value: &str) {
    if let Some((_, fields)) = regions.iter_mut().find(|(other, _)| other == region) {
        fields.add(name, value);
    } else {
        let mut fields = Fields::default();
        fields.add(name, value);
        regions.push((region.to_owned(), fields));
    }
}

/// Returns `true` if it looks like a region's name: `us-east-1`, `us-gov-west-1`.
fn is_region(name: &str) -> bool {
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|letter| letter.is_ascii_lowercase());
    match name.rsplit_once('-') {
        Some((words, number)) => {
            words.contains('-')
                && words.split('-').all(is_word)
                && !number.is_empty()
                && number.bytes().all(|digit| digit.is_ascii_digit())
        }
        None => false,
    }
}

impl AwsSpec {
    pub(super) fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let regions: Vec<Region> = fields
            .tables("regions", "key")?
            .into_iter()
            .map(|(name, fields)| Region::read(name, fields))
            .collect::<Result<_, _>>()?;
        let choice = Self {
            preferred: fields.text("preferred")?,
            min_regions: fields.number("min-regions")?,
            hedge_after: fields.time("hedge-after")?,
            call_deadline: fields.time("call-deadline")?,
            encryption_context: fields.truth("encryption-context")?,
            accept_no_context: fields.truth("accept-no-context")?,
            regions,
        };
        let lacks = fields.wrong(&format!("lacks its regions; {USAGE}"));
        let stray = fields.wrong("prefers a region that has no key; give it one, or prefer another");
        fields.finish()?;
        if choice.regions.is_empty() {
            return Err(lacks);
        }
        let is_known = |preferred: &String| choice.regions.iter().any(|region| region.name == *preferred);
        if choice.preferred.as_ref().is_some_and(|preferred| !is_known(preferred)) {
            return Err(stray);
        }
        Ok(choice)
    }

    #[cfg(feature = "aws")]
    pub(super) async fn open(&self, locks: LockPolicy) -> Result<AwsKms, OpenError> {
        let mut builder = AwsKms::builder().lock_policy(locks);
        for region in &self.regions {
            builder = builder.region(&region.name, &region.key);
            for key in &region.previous {
                builder = builder.previous_arn(&region.name, key);
            }
            if let Some(url) = &region.endpoint {
                builder = builder.endpoint(&region.name, url);
            }
        }
        if let Some(region) = &self.preferred {
            builder = builder.preferred(region);
        }
        if let Some(regions) = self.min_regions {
            builder = builder.min_regions(regions);
        }
        if let Some(time) = self.hedge_after {
            builder = builder.hedge_after(time);
        }
        let builder = builder.encryption_context(self.encryption_context.unwrap_or_default());
        let builder = builder.accept_no_context(self.accept_no_context.unwrap_or_default());
        Ok(Box::pin(builder.open()).await?)
    }
}

impl Region {
    fn read(name: String, mut fields: Fields) -> Result<Self, SpecError> {
        let key = fields.need("key", &format!("say the ARN of the key of {name}"))?;
        let region = Self {
            key,
            previous: fields.texts("previous")?,
            endpoint: endpoint(&mut fields, "endpoint")?,
            name,
        };
        fields.finish()?;
        Ok(region)
    }
}

const USAGE: &str = "say aws:REGION=ARN, and more regions with commas between them";
