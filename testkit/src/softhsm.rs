//! SoftHSM, behind a module that makes trouble.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use rustix::io::FdFlags;
use tempfile::TempDir;

use crate::{port, program, scratch};

/// A token of `SoftHSM` that a test has to itself, with a module of its own that stands before it
/// and makes what trouble it is told to.
///
/// `SoftHSM` reads where its tokens are from the environment, which a process cannot safely change
/// while it runs. So the first token of a process **starts the test binary anew**, in the same
/// process and with the same arguments, and with `SOFTHSM2_CONF` in its environment; tests that had
/// ended before run again. Nothing need be set from outside, and what is set is not used.
#[derive(Debug)]
pub struct SoftHsm {
    module: PathBuf,
    control: File,
    context: OnceLock<Pkcs11>,
    label: String,
    pin: String,
    keys: Mutex<Vec<Key>>,
    /// Where `SoftHSM` has the token.
    storage: Mutex<PathBuf>,
    _folder: TempDir,
}

/// A key in a token, as in its backup.
#[derive(Debug)]
struct Key {
    label: String,
    value: Vec<u8>,
    attributes: Vec<Attribute>,
}

/// A function of PKCS#11, by its place in the standard's list of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is named after its function")]
pub enum HsmFunction {
    Initialize = 0,
    GetInfo = 2,
    GetSlotList = 4,
    GetTokenInfo = 6,
    GetMechanismInfo = 8,
    OpenSession = 12,
    CloseSession = 13,
    Login = 18,
    CreateObject = 20,
    DestroyObject = 22,
    GetAttributeValue = 24,
    FindObjectsInit = 26,
    EncryptInit = 29,
    Encrypt = 30,
    DecryptInit = 33,
    Decrypt = 34,
    WrapKey = 60,
    UnwrapKey = 61,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HsmFault {
    /// It is made.
    None,
    /// It is not made, and this code is returned, so many times.
    Fail(u32, u32),
    /// It is made when the fault ends.
    Hang,
    /// It is made after 20 milliseconds.
    Slow,
}

impl SoftHsm {
    /// Returns `true` if `SoftHSM` is on this machine.
    #[must_use]
    pub fn is_installed() -> bool {
        library().is_some()
    }

    /// Makes a token without keys, whose label begins with `name`.
    #[must_use]
    pub fn token(name: &str) -> Self {
        let modules = &*MODULES;
        let folder = scratch::own_folder("softhsm");
        let module = folder.path().join("module.so");
        fs::copy(&modules.between, &module).unwrap();
        let control = control_of(&module);
        let label = format!("{name}-{:016x}", port::random());
        let hsm = Self {
            module,
            control,
            context: OnceLock::new(),
            pin: port::password(),
            keys: Mutex::default(),
            storage: Mutex::new(init_free_slot(&label)),
            label,
            _folder: folder,
        };
        hsm.init_pin();
        hsm
    }

    /// Returns the path of the PKCS#11 module.
    #[must_use]
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// Returns the token's label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the PIN of its user.
    #[must_use]
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// Makes an AES-256 key that is sensitive and not extractable.
    pub fn add_key(&self, label: &str) {
        self.add_key_of(label, &std::array::from_fn::<u8, 32, _>(|_| port::random().to_le_bytes()[0]));
    }

    /// Makes such a key of these bytes.
    pub fn add_key_of(&self, label: &str, value: &[u8]) {
        self.add_key_with(label, value, &[Attribute::Sensitive(true), Attribute::Extractable(false)]);
    }

    /// Makes a key that the token gives out in the clear, if it is not sensitive, or wrapped.
    pub fn add_extractable_key(&self, label: &str, is_sensitive: bool) {
        self.add_key_with(
            label,
            &[1; 32],
            &[Attribute::Sensitive(is_sensitive), Attribute::Extractable(true)],
        );
    }

    fn add_key_with(&self, label: &str, value: &[u8], attributes: &[Attribute]) {
        let key = Key { label: label.to_owned(), value: value.to_vec(), attributes: attributes.to_vec() };
        self.create(&key);
        self.keys().push(key);
    }

    /// Makes another token of the same label.
    pub fn add_double(&self) {
        drop(init_free_slot(&self.label));
    }

    /// Takes the token's storage away while it is in use: the device is gone.
    pub fn remove(&self) {
        // By one step: SoftHSM goes on to make files in it.
        let elsewhere = self.module.with_file_name(format!("removed-{:016x}", port::random()));
        fs::rename(&*self.storage(), elsewhere).unwrap();
    }

    /// Makes a token of the same label and PIN, and with the same keys, in another slot.
    pub fn replace(&self) {
        *self.storage() = init_free_slot(&self.label);
        self.init_pin();
        self.restore_keys();
    }

    /// Gives the user another PIN, which [`pin`](Self::pin) does not know of, and ends all sessions.
    pub fn change_pin(&self) {
        let pins = [self.pin.as_str(), "another PIN"].map(AuthPin::from);
        self.session().set_pin(&pins[0], &pins[1]).unwrap();
        self.end_sessions();
    }

    /// Resets the token as its maker's tool does: all sessions end, the keys are gone. While that
    /// lasts, no sessions can be opened.
    pub fn reset(&self) {
        self.fault(HsmFunction::OpenSession, HsmFault::Fail(TOKEN_NOT_PRESENT, u32::MAX));
        let slot = self.slot();
        self.context().init_token(slot, &AuthPin::from(SO_PIN), &self.label).unwrap();
        self.init_pin();
        self.fault(HsmFunction::OpenSession, HsmFault::None);
    }

    /// Puts the keys back that were in the token before it was reset.
    pub fn restore_keys(&self) {
        self.keys().iter().for_each(|key| self.create(key));
    }

    /// Ends all sessions, and so the login, as when the token is taken out and put back.
    pub fn end_sessions(&self) {
        self.set(Setting::OnlyCloses, 1);
        self.context().init_token(self.slot(), &AuthPin::from(SO_PIN), &self.label).unwrap();
        self.set(Setting::OnlyCloses, 0);
    }

    /// Tells the token what becomes of calls of a function from now on.
    pub fn fault(&self, function: HsmFunction, fault: HsmFault) {
        self.fault_at(function as usize, fault);
    }

    /// Tells the token what becomes of all calls from now on, but for those that load a module.
    pub fn fault_all(&self, fault: HsmFault) {
        for function in HsmFunction::GetSlotList as usize..FUNCTIONS {
            self.fault_at(function, fault);
        }
    }

    /// Says that the token encrypts with AES-KWP, as some do, rather than wrap keys with it.
    pub fn encrypt_with_kwp(&self) {
        self.set(Setting::EncryptsWithKwp, 1);
    }

    /// Says that the token takes no IV but its own for AES-GCM, which has this for all its bytes, and
    /// one more each time.
    pub fn insist_on_own_iv(&self, first: u8) {
        self.set(Setting::HasOwnIv, first.into());
    }

    /// Returns how many calls of a function there were by this token's module.
    #[must_use]
    pub fn calls(&self, function: HsmFunction) -> u32 {
        self.get(function as usize)
    }

    /// Returns how many calls hang now.
    #[must_use]
    pub fn hanging(&self) -> u32 {
        self.get(4 * FUNCTIONS)
    }

    /// Returns how many objects there are that go with the sessions they were made in.
    #[must_use]
    pub fn objects_in_sessions(&self) -> usize {
        self.session().find_objects(&[Attribute::Token(false)]).unwrap().len()
    }

    /// Returns what the token says of itself.
    #[must_use]
    pub fn info(&self) -> cryptoki::slot::TokenInfo {
        MODULES.context.get_token_info(self.slot()).unwrap()
    }

    fn context(&self) -> &Pkcs11 {
        self.context.get_or_init(|| initialised(&self.module))
    }

    fn keys(&self) -> MutexGuard<'_, Vec<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn storage(&self) -> MutexGuard<'_, PathBuf> {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> Slot {
        let context = &MODULES.context;
        let is_ours =
            |slot: &Slot| context.get_token_info(*slot).is_ok_and(|token| token.label() == self.label);
        context.get_slots_with_token().unwrap().into_iter().find(is_ours).unwrap()
    }

    /// Sets the user's PIN. It takes that nobody has a session, which those who reconnect may have
    /// for a moment.
    fn init_pin(&self) {
        loop {
            let session = MODULES.context.open_rw_session(self.slot()).unwrap();
            match session.login(UserType::So, Some(&AuthPin::from(SO_PIN))) {
                Ok(()) => {}
                Err(Error::Pkcs11(RvError::SessionReadOnlyExists, _)) => continue,
                Err(error) => panic!("{error}"),
            }
            session.init_pin(&AuthPin::from(self.pin.as_str())).unwrap();
            session.logout().unwrap();
            return;
        }
    }

    fn create(&self, key: &Key) {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(true),
            Attribute::Unwrap(true),
            Attribute::Label(key.label.clone().into_bytes()),
            Attribute::Value(key.value.clone()),
        ];
        template.extend(key.attributes.iter().cloned());
        // Who reconnects meanwhile logs everybody out for a moment, and then a private key cannot be
        // written; nothing is left of it.
        let mut failure = None;
        for _ in 0..CREATIONS_MAX {
            match self.session().create_object(&template) {
                Ok(_) => return,
                Err(Error::Pkcs11(RvError::GeneralError | RvError::UserNotLoggedIn, function)) => {
                    failure = Some(function);
                    thread::sleep(CREATION_PAUSE);
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("a key cannot be written: {failure:?}");
    }

    /// Opens a session of the user. Others may have logged in or out meanwhile.
    fn session(&self) -> Session {
        let session = MODULES.context.open_rw_session(self.slot()).unwrap();
        match session.login(UserType::User, Some(&AuthPin::from(self.pin.as_str()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => session,
            Err(error) => panic!("{error}"),
        }
    }

    fn fault_at(&self, function: usize, fault: HsmFault) {
        let (mode, code, times) = match fault {
            HsmFault::None => (0, 0, 0),
            HsmFault::Fail(code, times) => (1, code, times),
            HsmFault::Hang => (2, 0, 0),
            HsmFault::Slow => (3, 0, 0),
        };
        // The mode last: it makes the others count.
        self.put(2 * FUNCTIONS + function, code);
        self.put(3 * FUNCTIONS + function, times);
        self.put(FUNCTIONS + function, mode);
    }

    fn set(&self, setting: Setting, value: u32) {
        self.put(4 * FUNCTIONS + setting as usize, value);
    }

    fn put(&self, place: usize, value: u32) {
        self.control.write_all_at(&value.to_ne_bytes(), 4 * place as u64).unwrap();
    }

    fn get(&self, place: usize) -> u32 {
        let mut value = [0; 4];
        self.control.read_exact_at(&mut value, 4 * place as u64).unwrap();
        u32::from_ne_bytes(value)
    }
}

/// What follows `hanging` in the control file.
#[derive(Clone, Copy)]
enum Setting {
    OnlyCloses = 1,
    EncryptsWithKwp = 2,
    HasOwnIv = 3,
}

const FUNCTIONS: usize = 68;
const CONTROL_BYTES: u64 = 4 * (4 * FUNCTIONS as u64 + 4);
const SO_PIN: &str = "security officer";
const CREATIONS_MAX: u32 = 1_000;
const CREATION_PAUSE: Duration = Duration::from_millis(1);
const TOKEN_NOT_PRESENT: u32 = 0xe0;
const SOURCE: &str = include_str!("softhsm/between.c");

/// What all tokens of this process share.
struct Modules {
    /// What the tokens' modules are copies of.
    between: PathBuf,
    /// One without faults, for the tests' own work.
    context: Pkcs11,
    _folder: TempDir,
}

static MODULES: LazyLock<Modules> = LazyLock::new(|| {
    let library = library().unwrap_or_else(|| program::missing("SoftHSM"));
    configure();
    let folder = scratch::own_folder("softhsm-modules");
    let compile = |name: &str, source: &str, defines: &[String]| {
        let [input, output] = ["c", "so"].map(|kind| folder.path().join(format!("{name}.{kind}")));
        fs::write(&input, source).unwrap();
        // What links Rust's programs.
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&output).args(defines).arg(&input);
        program::run(cc, b"");
        output
    };
    let lock = "#include <pthread.h>\npthread_rwlock_t inside = PTHREAD_RWLOCK_INITIALIZER;\n";
    let lock = compile("lock", lock, &[]);
    let defines =
        [("REAL", &library), ("LOCK", &lock)].map(|(name, path)| format!("-D{name}=\"{}\"", path.display()));
    let between = compile("between", SOURCE, &defines);
    let admin = folder.path().join("admin.so");
    fs::copy(&between, &admin).unwrap();
    drop(control_of(&admin));
    Modules { between, context: initialised(&admin), _folder: folder }
});

/// Makes a token where all are made, in the one slot that is free, and returns its folder.
fn init_free_slot(label: &str) -> PathBuf {
    static FREE_SLOT: Mutex<()> = Mutex::new(());
    let _free_slot = FREE_SLOT.lock().unwrap_or_else(PoisonError::into_inner);
    let context = &MODULES.context;
    // The slot of a token that was removed knows nothing.
    let is_free = |slot: &Slot| context.get_token_info(*slot).is_ok_and(|token| !token.token_initialized());
    let slot = context.get_slots_with_token().unwrap().into_iter().find(is_free).unwrap();
    let before = token_folders();
    context.init_token(slot, &AuthPin::from(SO_PIN), label).unwrap();
    token_folders().into_iter().find(|folder| !before.contains(folder)).unwrap()
}

fn token_folders() -> Vec<PathBuf> {
    let configuration = PathBuf::from(env::var_os("SOFTHSM2_CONF").unwrap());
    let folders = fs::read_dir(configuration.with_file_name("tokens")).unwrap();
    folders.map(|folder| folder.unwrap().path()).collect()
}

fn library() -> Option<PathBuf> {
    let usual = ["/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/local/lib/softhsm", "/usr/lib64/pkcs11"];
    program::find("libsofthsm2.so", "CLAVIGER_SOFTHSM_LIB", &usual.map(PathBuf::from))
}

fn control_of(module: &Path) -> File {
    let path = format!("{}.control", module.display());
    let control = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    control.set_len(CONTROL_BYTES).unwrap();
    control
}

fn initialised(module: &Path) -> Pkcs11 {
    let context = Pkcs11::new(module).unwrap();
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => context,
        Err(error) => panic!("{error}"),
    }
}

const CONFIGURED: &str = "CLAVIGER_SOFTHSM_CONFIGURED";

/// Returns if this process has a configuration of its own in its environment, and else starts itself
/// anew with one.
fn configure() {
    let process = process::id().to_string();
    // A child has its parent's environment, and is not to have its tokens.
    if env::var(CONFIGURED).is_ok_and(|configured| configured == process) {
        return;
    }
    let folder = tempfile::Builder::new().prefix("claviger-softhsm-").tempdir().unwrap();
    let (tokens, configuration) = (folder.path().join("tokens"), folder.path().join("softhsm2.conf"));
    fs::create_dir(&tokens).unwrap();
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    fs::write(&configuration, text).unwrap();
    #[expect(clippy::zombie_processes, reason = "it outlives us")]
    let remover = scratch::remover(&folder.keep());
    outlive_exec(&remover);
    let error = Command::new(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .env(CONFIGURED, process)
        .env("SOFTHSM2_CONF", configuration)
        .exec();
    panic!("the test binary cannot be started anew: {error}");
}

/// The remover waits for the end of its input, which this process goes on to hold when it is
/// another program.
fn outlive_exec(remover: &Child) {
    rustix::io::fcntl_setfd(remover.stdin.as_ref().unwrap(), FdFlags::empty()).unwrap();
}
