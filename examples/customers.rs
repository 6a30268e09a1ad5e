//! Makes a CSV file of invented customers, to try field encryption on.
//!
//! ```text
//! cargo run --release --example customers > examples/customers.csv
//! cargo run --release --example customers -- 1000000 10000 > big.csv
//! cargo run --release --example customers -- 1000000 10000 --shuffled > big.csv
//! ```
//!
//! The arguments are the number of rows (1000) and of customers (120). Rows come sorted by
//! customer; with `--shuffled` the same rows come in random order. Equal arguments give
//! equal bytes, on every machine: `examples/customers.csv` is what the defaults give.
//!
//! Nobody in the file is real. Names and cities are drawn from short lists, e-mail addresses
//! are at example.com, which RFC 2606 reserves, and card numbers are `411111` (the start of a
//! well-known test number) and ten random digits, mostly with a wrong check digit.
//!
//! The file is UTF-8 with `\n` line ends and has what trips up CSV readers: commas, quotes
//! and line breaks within fields, empty fields, names outside ASCII.

use std::{
    borrow::Cow,
    env,
    ffi::OsString,
    io::{self, BufWriter, ErrorKind, Write},
    num::{NonZeroU32, NonZeroU64},
    process::ExitCode,
};

fn main() -> ExitCode {
    let Some(arguments) = Arguments::parse(env::args_os().skip(1)) else {
        eprintln!("usage: customers [ROWS [CUSTOMERS]] [--shuffled]");
        eprintln!("ROWS and CUSTOMERS are whole numbers from 1 to {COUNT_MAX}");
        return ExitCode::from(2);
    };
    match write_csv(&arguments, BufWriter::new(io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough: `customers | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
struct Arguments {
    rows: NonZeroU32,
    customers: NonZeroU32,
    order: Order,
}

impl Arguments {
    /// Returns the arguments, defaults filled in; `None` if there is one we do not know.
    fn parse(words: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut order = Order::ByCustomer;
        let mut counts = Vec::new();
        for word in words {
            if word == "--shuffled" {
                order = Order::Shuffled;
            } else {
                let count = word.to_str()?.parse::<NonZeroU32>().ok()?;
                counts.push((count <= COUNT_MAX).then_some(count)?);
            }
        }
        let (rows, customers) = match *counts.as_slice() {
            [] => (ROWS, CUSTOMERS),
            [rows] => (rows, CUSTOMERS),
            [rows, customers] => (rows, customers),
            _ => return None,
        };
        Some(Self { rows, customers, order })
    }
}

/// The order of the rows in the file.
enum Order {
    ByCustomer,
    Shuffled,
}

fn write_csv(arguments: &Arguments, mut out: impl Write) -> io::Result<()> {
    // A row depends on its number and customer alone: its place in the file changes nothing.
    let mut rows: Vec<(u32, u32)> = (1..).zip(owners(arguments)).collect();
    if matches!(arguments.order, Order::Shuffled) {
        shuffle(&mut rows, &mut SplitMix64::new(Stream::Order, 0));
    }
    writeln!(out, "row_id,customer_id,name,email,card_number,city,amount")?;
    for (row_id, customer_id) in rows {
        write_row(&mut out, row_id, &Customer::new(customer_id))?;
    }
    out.flush()
}

/// Returns the customer of each row, ascending.
///
/// Every customer has a row if there are enough of them. The rest goes mostly to low numbers,
/// the oldest customers: a few have many rows, many have few, as in life.
fn owners(arguments: &Arguments) -> Vec<u32> {
    let customers = arguments.customers.min(arguments.rows);
    let mut random = SplitMix64::new(Stream::Owners, 0);
    let mut owners: Vec<u32> = (1..=customers.get()).collect();
    for _ in customers.get()..arguments.rows.get() {
        let ceiling = random.below(customers).saturating_add(1);
        let ceiling = NonZeroU32::new(ceiling).unwrap_or(NonZeroU32::MIN);
        owners.push(random.below(ceiling).saturating_add(1));
    }
    owners.sort_unstable();
    owners
}

/// Shuffles in place (Fisher-Yates, from the end).
fn shuffle<T>(items: &mut [T], random: &mut SplitMix64) {
    for last in (1..items.len()).rev() {
        // `last + 1` items are left, and `index` is one of them.
        let index = random.index(last.saturating_add(1));
        items.swap(last, index);
    }
}

/// What stays the same in all rows of a customer.
struct Customer {
    id: u32,
    name: String,
    email: String,
    cards: [String; 2],
    city: &'static str,
}

impl Customer {
    fn new(id: u32) -> Self {
        let mut random = SplitMix64::new(Stream::Customer, id);
        let (given, given_ascii) = random.pick(GIVEN_NAMES);
        let (family, family_ascii) = random.pick(FAMILY_NAMES);
        let name = match random.percent() {
            0..4 => format!("{given} {family}, Jr."),
            4..8 => format!("{family}, {given}"),
            8..12 => format!("{given} \"{}\" {family}", random.pick(NICKNAMES)),
            _ => format!("{given} {family}"),
        };
        Self {
            id,
            name,
            email: format!("{given_ascii}.{family_ascii}.{id}@example.com"),
            cards: [card_number(&mut random), card_number(&mut random)],
            city: random.pick(CITIES),
        }
    }
}

/// Returns `411111` and ten digits. The Luhn check digit is not computed: it is right by
/// chance in one number of ten.
fn card_number(random: &mut SplitMix64) -> String {
    format!("411111{:010}", random.next() % TEN_DIGITS)
}

/// Writes one row: the customer's data, with the slips of whoever typed it in.
fn write_row(out: &mut impl Write, row_id: u32, customer: &Customer) -> io::Result<()> {
    let mut random = SplitMix64::new(Stream::Row, row_id);
    let name = match random.percent() {
        0 => Cow::from(format!("{}\n(accounts department)", customer.name)),
        _ => Cow::from(&customer.name),
    };
    let email = match random.percent() {
        0..3 => "",
        _ => &customer.email,
    };
    let [usual_card, other_card] = &customer.cards;
    let card = match random.percent() {
        0..15 => other_card,
        _ => usual_card,
    };
    let city = match random.percent() {
        0..2 => Cow::from(format!("c/o Reception\n{}", customer.city)),
        2..10 => Cow::from(random.pick(CITIES)),
        _ => Cow::from(customer.city),
    };
    let sign = match random.percent() {
        0..3 => "-", // a refund
        _ => "",
    };
    // The product of two draws: many small amounts, few large ones.
    let cents = random.next() % 1_000 * (random.next() % 1_000) + 1;
    writeln!(
        out,
        "{row_id},cust-{:05},{},{email},{card},{},{sign}{}.{:02}",
        customer.id,
        quoted(&name),
        quoted(&city),
        cents / 100,
        cents % 100,
    )
}

/// Returns the field as RFC 4180 wants it: quoted if need be, quotes within doubled.
fn quoted(field: &str) -> Cow<'_, str> {
    if field.contains([',', '"', '\n', '\r']) {
        Cow::from(format!("\"{}\"", field.replace('"', "\"\"")))
    } else {
        Cow::from(field)
    }
}

/// What random numbers are drawn for. Streams do not overlap in practice, so that a new draw
/// in one leaves the others as they are.
#[derive(Clone, Copy)]
enum Stream {
    Owners = 1,
    Order = 2,
    Customer = 3,
    Row = 4,
}

/// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014):
/// a counter in steps of the golden ratio, put through a mixing function.
///
/// Small, quick and the same everywhere. Anyone can predict it: never make keys with it.
struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// Starts the sequence of the stream's item of this number.
    fn new(stream: Stream, number: u32) -> Self {
        let position = ((stream as u64) << 32) | u64::from(number);
        // Mixed once, since neighbouring states would give one sequence a step apart.
        let state = Self { state: SEED ^ position.wrapping_mul(MIX_1) }.next();
        Self { state }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_RATIO);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(MIX_1);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(MIX_2);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 to `bound - 1`. The remainder favours small numbers by less
    /// than one part in 2^32, which does no harm here.
    fn below(&mut self, bound: NonZeroU32) -> u32 {
        let remainder = self.next() % NonZeroU64::from(bound);
        u32::try_from(remainder).unwrap_or_default() // always fits, as `bound` does
    }

    /// Returns a number from 0 to 99.
    fn percent(&mut self) -> u64 {
        self.next() % 100
    }

    /// Returns an index of a list of this length; 0 if it is empty.
    fn index(&mut self, length: usize) -> usize {
        let index = self.next().checked_rem(length as u64).unwrap_or_default();
        usize::try_from(index).unwrap_or_default() // always fits, as `length` does
    }

    /// Returns an item of the list; the default if it is empty.
    fn pick<T: Copy + Default>(&mut self, list: &[T]) -> T {
        let index = self.index(list.len());
        list.get(index).copied().unwrap_or_default()
    }
}

const SEED: u64 = 0x636c_6176_6967_6572; // "claviger"
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX_1: u64 = 0xbf58_476d_1ce4_e5b9;
const MIX_2: u64 = 0x94d0_49bb_1331_11eb;

// The compiler checks these `unwrap`s: they cannot fail in a running program.
const ROWS: NonZeroU32 = NonZeroU32::new(1_000).unwrap();
const CUSTOMERS: NonZeroU32 = NonZeroU32::new(120).unwrap();
/// Every row is in memory at once, with 8 bytes.
const COUNT_MAX: NonZeroU32 = NonZeroU32::new(100_000_000).unwrap();
const TEN_DIGITS: u64 = 10_000_000_000;

/// Given names, and how they look in an e-mail address.
const GIVEN_NAMES: &[(&str, &str)] = &[
    ("Aisha", "aisha"),
    ("Ana", "ana"),
    ("André", "andre"),
    ("Chloë", "chloe"),
    ("Daniel", "daniel"),
    ("Emma", "emma"),
    ("François", "francois"),
    ("Grace", "grace"),
    ("Henry", "henry"),
    ("Ingrid", "ingrid"),
    ("Jürgen", "juergen"),
    ("Kwame", "kwame"),
    ("Liam", "liam"),
    ("Łukasz", "lukasz"),
    ("Maria", "maria"),
    ("Noah", "noah"),
    ("Olivia", "olivia"),
    ("Ольга", "olga"),
    ("Priya", "priya"),
    ("Robert", "robert"),
    ("Søren", "soren"),
    ("Thị Mai", "thi.mai"),
    ("明", "ming"),
    ("さくら", "sakura"),
];

/// Family names, and how they look in an e-mail address.
const FAMILY_NAMES: &[(&str, &str)] = &[
    ("Andersson", "andersson"),
    ("Brown", "brown"),
    ("Çelik", "celik"),
    ("Costa", "costa"),
    ("Dvořák", "dvorak"),
    ("Evans", "evans"),
    ("García", "garcia"),
    ("Haddad", "haddad"),
    ("Иванова", "ivanova"),
    ("Johnson", "johnson"),
    ("Kowalski", "kowalski"),
    ("李", "li"),
    ("Mbeki", "mbeki"),
    ("Müller", "mueller"),
    ("Nguyễn", "nguyen"),
    ("O'Brien", "obrien"),
    ("Patel", "patel"),
    ("Rossi", "rossi"),
    ("Smith", "smith"),
    ("佐藤", "sato"),
    ("van der Berg", "van.der.berg"),
    ("Williams", "williams"),
    ("Yılmaz", "yilmaz"),
    ("Zhang", "zhang"),
];

const NICKNAMES: &[&str] = &["Ace", "Bo", "Kit", "Red", "Sunny"];

const CITIES: &[&str] = &[
    "Amsterdam",
    "Austin, TX",
    "Berlin",
    "Bogotá",
    "Cape Town",
    "Dublin",
    "Kraków",
    "København",
    "Leeds",
    "Lisboa",
    "London",
    "Lyon",
    "Madrid",
    "Milano",
    "Mumbai",
    "München",
    "Nairobi",
    "Osaka",
    "Portland, OR",
    "Praha",
    "São Paulo",
    "Toronto",
    "Washington, DC",
    "Zürich",
    "東京",
];
