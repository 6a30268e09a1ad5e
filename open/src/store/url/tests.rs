use super::*;

#[test]
fn a_password_is_found_wherever_it_stands() {
    for text in [
        "postgres://user:PW@host/keys",
        "postgres://:PW@host/keys",
        "postgresql://user:PW@/keys?host=/run",
        "POSTGRES://user:PW@host/keys",
        "mysql://user:PW@host:3306/keys?ssl-mode=REQUIRED",
        "postgres://user@host/keys?password=PW",
        "postgres://user@host/keys?sslmode=require&PassWord=PW",
        "dynamodb://table?endpoint=http://user:PW@127.0.0.1:8000",
        // Not escaped, and so no URL, or another one than was meant.
        "postgres://user:P/W@host/keys",
        "postgres://user:P#W@host/keys",
        "postgres://user:12#W@host/keys",
        "postgres://user:P?W@host/keys",
        "postgres://user:12?W@host/keys",
        "mysql://user:1/PW@host/keys",
        "mysql://us er:PW@ho st/keys",
    ] {
        assert!(has_password(text), "{text}");
    }
    for text in [
        "",
        "sqlite:keys.db",
        "sqlite:/home/me@work:1/keys.db",
        "@/etc/claviger/metastore",
        "memory:",
        "postgres://user@host:5432/keys",
        "postgres://user:@host/keys",
        "postgres://host:5432/keys?application_name=a@b",
        "postgres://user@host/keys?password=",
        "dynamodb://table?region=eu-west-1&endpoint=http://127.0.0.1:8000",
    ] {
        assert!(!has_password(text), "{text}");
    }
}

#[test]
fn parameters_of_the_driver_go_through_and_ours_do_not() {
    let text = "mysql://user:p%40w@host/keys?ssl-mode=REQUIRED&timezone=%2B02:00&ssl-ca=/a%20b.pem";
    assert_eq!(ServerUrl::parse(text, &MYSQL, "--metastore").unwrap().reveal(None), text);
    let url = ServerUrl::parse(
        "postgres://user@host/keys?options[search_path]=keys&sslmode=require",
        &POSTGRES,
        "--metastore",
    )
    .unwrap();
    assert_eq!(url.reveal(None), "postgres://user@host/keys?options[search_path]=keys&sslmode=require");
    let url = ServerUrl::parse("postgres://user@host/keys", &POSTGRES, "--metastore").unwrap();
    assert_eq!((url.reveal(None).as_str(), url.option("region")), ("postgres://user@host/keys", None));
    let url = ServerUrl::parse("dynamodb://My.Table_1?endpoint=http://[::1]:8000/", &DYNAMODB, "--metastore")
        .unwrap();
    assert_eq!(url.reveal(None), "dynamodb://My.Table_1");
    assert_eq!((url.host(), url.option("endpoint")), ("My.Table_1", Some("http://[::1]:8000/")));
}

#[test]
fn several_hosts_go_through_and_are_named() {
    let text = "postgres://user:p%40w@h1:5432,h2,[::1]:5433/keys?target_session_attrs=primary&prepared-statements=off";
    let url = ServerUrl::parse(text, &POSTGRES, "--metastore").unwrap();
    assert_eq!(url.reveal(None), text);
    assert_eq!(url.to_string(), "postgres://user@h1:5432,h2,[::1]:5433/keys");
    assert!(has_password(text) && has_password("postgres://user@h1:1,h2:2/keys?password=PW"));
    assert!(!has_password("mysql://user@h1:1,h2:2/keys"));
    for wrong in
        ["postgres://user@h1,h2:SECRET/keys", "postgres://user@h1:SECRET,h2/keys", "mysql://u@h1,:SECRET/k"]
    {
        let failure = ServerUrl::parse(wrong, &POSTGRES, "--metastore").unwrap_err();
        assert!(!failure.to_string().contains("SECRET"), "{}", failure.to_string());
    }
}

#[test]
fn what_is_wrong_is_told_and_not_repeated() {
    for (text, form, says) in [
        ("postgres:SECRET", &POSTGRES, "say postgres://USER@HOST"),
        ("postgres:/h1,h2?password=SECRET", &POSTGRES, "lacks its //; say postgres://USER@HOST"),
        ("mysql:/u:SECRET,h2/keys?x=y://z", &MYSQL, "lacks its //"),
        ("dynamodb:/SECRET", &DYNAMODB, "lacks its //"),
        ("postgres://user:SEC/RET@host/keys", &POSTGRES, "/ is %2F"),
        ("postgres://user:12#SECRET@host/keys", &POSTGRES, "# is %23"),
        ("mysql://user:1/SECRET@host/keys", &MYSQL, "/ is %2F"),
        ("postgres://host/keys?SECRET=1", &POSTGRES, "there are application_name, dbname, host, "),
        ("postgres://host/keys?timezone=SECRET", &POSTGRES, "that is not known"),
        ("mysql://host/keys?SECRET", &MYSQL, "there are socket, ssl-ca, "),
        ("dynamodb://table?region=SECRET&region=SECRET", &DYNAMODB, "twice"),
        ("dynamodb://AKIA:SECRET@table", &DYNAMODB, "names a user"),
        ("dynamodb://SECRET@table", &DYNAMODB, "names a user"),
        ("dynamodb://table?profile=SECRET", &DYNAMODB, "there are endpoint, region"),
    ] {
        let failure = ServerUrl::parse(text, form, "--metastore").unwrap_err();
        assert_eq!(failure.at(), None);
        let message = failure.to_string();
        assert!(message.contains(says), "{text}: {message}");
        assert!(!message.contains("SEC") && !message.contains("RET"), "{message}");
    }
}

#[test]
fn neither_display_nor_debug_shows_password_or_parameters() {
    let text = "postgres://user:SECRET@host:5433/keys?password=SECRET&application_name=SECRET";
    let url = ServerUrl::parse(text, &POSTGRES, "--metastore").unwrap();
    assert_eq!(format!("{url} {url:?}"), "postgres://user@host:5433/keys postgres://user@host:5433/keys");
    assert!(url.reveal(None).contains("SECRET"));
}
