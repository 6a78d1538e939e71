//! Listening and connecting: addresses that are taken, socket files that are left behind, waits
//! that end. What newcomers say is tested elsewhere.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use limosa_transport::{
    Endpoint, IoChoice, LinkConfig, Listener, TransportError, TransportFault, Wait, connect_control,
};
use socket2::{Domain, SockAddr, Socket, Type};
use support::{Net, World, expected, soon, timed};

const NETS: [Net; 3] = [Net::Tcp4, Net::Tcp6, Net::Unix];

fn world(net: Net) -> World {
    World::new(net, IoChoice::Auto)
}

fn bind_again(endpoint: &Endpoint) -> Result<Listener, TransportError> {
    Listener::bind(endpoint, &LinkConfig::default())
}

#[test]
fn a_taken_address_is_named_and_its_listener_undisturbed() {
    for net in NETS {
        let world = world(net);
        let mut listener = world.listener();
        let endpoint = listener.endpoint().clone();
        let error = bind_again(&endpoint).unwrap_err();
        assert!(
            matches!(error.fault, TransportFault::AddressInUse),
            "{error}"
        );
        assert!(error.to_string().contains(&endpoint.to_string()), "{error}");
        let source = connect_control(&endpoint, &world.config, &soon()).unwrap();
        source.split().0.send(&support::hello()).unwrap();
        listener.accept_control(&soon()).unwrap();
    }
}

#[test]
fn an_address_is_free_again_when_its_listener_is_gone() {
    for net in NETS {
        let world = world(net);
        for _ in 0..3 {
            let mut listener = world.listener();
            let endpoint = listener.endpoint().clone();
            // A connection that the target closes first leaves TIME_WAIT behind.
            let source = connect_control(&endpoint, &world.config, &soon()).unwrap();
            let (mut writer, mut reader) = source.split();
            writer.send(&support::hello()).unwrap();
            drop(listener.accept_control(&soon()).unwrap());
            drop(listener);
            reader.recv().unwrap_err();
            drop(bind_again(&endpoint).unwrap());
            let error = connect_control(&endpoint, &world.config, &soon()).unwrap_err();
            assert!(matches!(error.fault, TransportFault::Refused), "{error}");
        }
    }
}

#[test]
fn a_dead_listeners_file_is_replaced_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limosa.sock");
    let endpoint = Endpoint::Unix(path.clone());
    // The standard library's listener leaves its file behind.
    drop(UnixListener::bind(&path).unwrap());
    let listener = bind_again(&endpoint).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for the owner only");
    drop(listener);
    assert!(!path.exists(), "removed with its listener");

    fs::write(&path, "precious").unwrap();
    let error = bind_again(&endpoint).unwrap_err();
    assert!(
        matches!(error.fault, TransportFault::AddressInUse),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_file_that_someone_else_made_meanwhile_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limosa.sock");
    let listener = bind_again(&Endpoint::Unix(path.clone())).unwrap();
    let own = fs::metadata(&path).unwrap().ino();
    // Kept under another name, so that its number is not given to the next file.
    fs::rename(&path, folder.path().join("moved")).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    assert_ne!(fs::metadata(&path).unwrap().ino(), own);
    drop(listener);
    assert!(path.exists());
}

#[test]
fn of_listeners_that_start_at_once_one_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limosa.sock");
    let endpoint = Endpoint::Unix(path.clone());
    for _ in 0..20 {
        drop(UnixListener::bind(&path).unwrap());
        let living: Vec<_> = thread::scope(|scope| {
            let starts: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| bind_again(&endpoint)))
                .collect();
            let results = starts.into_iter().map(|start| start.join().unwrap());
            results.filter_map(Result::ok).collect()
        });
        assert_eq!(living.len(), 1);
        connect_control(&endpoint, &LinkConfig::default(), &soon()).unwrap();
    }
}

#[test]
fn an_unusable_address_is_named() {
    for text in ["unix:/no/such/folder/limosa.sock", "tcp://192.0.2.1:4444"] {
        let error = bind_again(&text.parse().unwrap()).unwrap_err();
        let fault = &error.fault;
        assert!(
            matches!(fault, TransportFault::AddressUnusable { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn waits_for_newcomers_end() {
    for net in NETS {
        let mut listener = world(net).listener();
        let longest = Duration::from_millis(120);
        let (error, took) = timed(|| {
            listener
                .accept_control(&Wait::at_most(longest))
                .unwrap_err()
        });
        assert!(
            matches!(error.fault, TransportFault::TimedOut { .. }),
            "{error}"
        );
        assert!(took >= longest && took < Duration::from_secs(2), "{took:?}");
        let flag = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(longest);
                flag.store(true, Ordering::Release);
            });
            let wait = Wait::forever().unless(&flag);
            let (error, took) = timed(|| listener.accept_streams(&expected(1), &wait));
            let fault = error.unwrap_err().fault;
            assert!(matches!(fault, TransportFault::Cancelled), "{fault}");
            assert!(took < Duration::from_secs(2), "{took:?}");
        });
    }
}

#[test]
fn a_name_is_looked_up() {
    let listener = world(Net::Tcp4).listener();
    let Endpoint::Tcp(address) = listener.endpoint() else {
        panic!("{}", listener.endpoint());
    };
    let endpoint = format!("tcp://localhost:{}", address.port())
        .parse()
        .unwrap();
    let link = connect_control(&endpoint, &LinkConfig::default(), &soon()).unwrap();
    assert_eq!(link.peer(), listener.endpoint());
}

/// A Unix listener that never accepts and whose queue is full: a connect to it blocks.
#[test]
fn waits_for_a_connection_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.sock");
    let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    full.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    full.listen(0).unwrap();
    let endpoint = Endpoint::Unix(path);
    let longest = Duration::from_millis(150);
    let config = LinkConfig {
        connect_max: longest,
        ..LinkConfig::default()
    };
    let _first = connect_control(&endpoint, &config, &soon()).unwrap();
    let (error, took) = timed(|| connect_control(&endpoint, &config, &soon()).unwrap_err());
    assert!(
        matches!(error.fault, TransportFault::TimedOut { .. }),
        "{error}"
    );
    assert!(took >= longest && took < Duration::from_secs(2), "{took:?}");
    let flag = AtomicBool::new(true);
    let wait = soon().unless(&flag);
    let error = connect_control(&endpoint, &config, &wait).unwrap_err();
    assert!(matches!(error.fault, TransportFault::Cancelled), "{error}");
}
