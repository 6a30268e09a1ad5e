//! The contract of a KMS, of each kind of envelope.

use claviger::SystemClock;

use crate::support::{any_of, k_of_n, members, outage_of};

mod any_of_three {
    use super::*;

    claviger::testing::kms_copies_contract!(async {
        any_of(&members::<3>()).asherah_compatible(false).build().unwrap()
    });
    claviger::testing::kms_wrong_key_contract!(async {
        let kms = || any_of(&members::<3>()).asherah_compatible(false).build().unwrap();
        (kms(), kms())
    });
    claviger::testing::kms_outage_contract!(async {
        let members = members::<3>();
        let kms = any_of(&members).asherah_compatible(false).clock(SystemClock::new());
        (kms.build().unwrap(), outage_of(&members))
    });
}

mod any_of_compatible {
    use super::*;

    claviger::testing::kms_contract!(async { any_of(&members::<3>()).build().unwrap() });
    claviger::testing::kms_wrong_key_contract!(async {
        let kms = || any_of(&members::<3>()).build().unwrap();
        (kms(), kms())
    });
    claviger::testing::kms_outage_contract!(async {
        let members = members::<3>();
        let kms = any_of(&members).clock(SystemClock::new()).build().unwrap();
        (kms, outage_of(&members))
    });
}

mod three_of_five {
    use super::*;

    claviger::testing::kms_copies_contract!(async { k_of_n(3, &members::<5>()).build().unwrap() });
    claviger::testing::kms_wrong_key_contract!(async {
        let kms = || k_of_n(3, &members::<5>()).build().unwrap();
        (kms(), kms())
    });
    claviger::testing::kms_outage_contract!(async {
        let members = members::<5>();
        let kms = k_of_n(3, &members).clock(SystemClock::new()).build().unwrap();
        (kms, outage_of(&members))
    });

    mod with_two_out_of_reach {
        use super::*;

        // The third to go is the one that counts.
        claviger::testing::kms_outage_contract!(async {
            let members = members::<5>();
            let kms = k_of_n(3, &members).clock(SystemClock::new()).build().unwrap();
            (kms, outage_of(&members[2..]))
        });
    }
}

mod two_of_two {
    use super::*;

    claviger::testing::kms_copies_contract!(async { k_of_n(2, &members::<2>()).build().unwrap() });
}
