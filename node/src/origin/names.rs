//! Names of hosts, looked up a few at a time.
//!
//! The system's own look-up is used, so that `/etc/hosts`, mDNS and whatever else the device is set up for count. It holds a
//! thread for as long as name servers are silent, ten seconds and more on a site whose uplink has gone, and the threads are
//! the same ones on which the store reads and writes. Invariants: at most [`LOOKUPS_MAX`] of them look names up at once,
//! whoever has stopped waiting; a name that is being looked up is not looked up a second time; an answer is kept by nobody.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::internal::{self, Internal};

/// Threads that look names up at once. A quarter of those for blocking calls (`cli/mod.rs`); a device has a handful of
/// registries, and beyond that a look-up waits for its turn within the time that a connection may take.
const LOOKUPS_MAX: usize = 4;
/// Names that are looked up or wait to be. More than the mirror has connections, so only a defect comes to it.
const NAMES_MAX: usize = 128;

/// Why a name has no address. Cheap to clone: whoever waits for the same name is told the same.
#[derive(Debug, Clone, Error)]
pub(super) enum NameError {
    /// The system says so.
    #[error("{0}")]
    System(Arc<io::Error>),
    /// Its addresses are all ones that may not be gone to.
    #[error(transparent)]
    Internal(#[from] Internal),
    /// Too many names wait.
    #[error("{NAMES_MAX} names are being looked up already")]
    Busy,
}

type Found = Result<Arc<[SocketAddr]>, NameError>;
type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks names up.
#[derive(Clone)]
pub(super) struct Names(Arc<Inner>);

struct Inner {
    lookup: Box<Lookup>,
    turns: Arc<Semaphore>,
    /// By name; each as long as its look-up takes.
    pending: Mutex<HashMap<String, Shared<BoxFuture<'static, Found>>>>,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("pending", &self.0.pending().len()).finish()
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new(Box::new(|name| Ok((name, 0).to_socket_addrs()?.collect())))
    }
}

impl Names {
    fn new(lookup: Box<Lookup>) -> Self {
        Self(Arc::new(Inner { lookup, turns: Arc::new(Semaphore::new(LOOKUPS_MAX)), pending: Mutex::default() }))
    }

    /// What looks names up for a client; one that must not come to addresses of the device and its LAN is told the others.
    pub(super) fn resolver(&self, outside_only: bool) -> Arc<dyn Resolve> {
        Arc::new(Resolver { names: self.clone(), outside_only })
    }

    /// The addresses of a name, port 0.
    async fn find(&self, name: &str) -> Found {
        let found = {
            let mut pending = self.0.pending();
            if let Some(found) = pending.get(name) {
                found.clone()
            } else if pending.len() >= NAMES_MAX {
                return Err(NameError::Busy);
            } else {
                let found = Arc::clone(&self.0).look_up(name.to_owned()).boxed().shared();
                pending.insert(name.to_owned(), found.clone());
                // Ends though everybody has stopped waiting, so that whoever comes later is not told what was.
                let (inner, name, driven) = (Arc::clone(&self.0), name.to_owned(), found.clone());
                tokio::spawn(async move {
                    let _ = driven.await;
                    inner.pending().remove(&name);
                });
                found
            }
        };
        found.await
    }
}

impl Inner {
    async fn look_up(self: Arc<Self>, name: String) -> Found {
        let system = |error| NameError::System(Arc::new(error));
        // The permit goes to the thread: if the look-up hangs, so does the permit.
        let permit = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| NameError::Busy)?;
        let looking = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            (self.lookup)(&name)
        });
        let found = looking.await.map_err(|stopped| system(io::Error::other(stopped)))?;
        found.map(Arc::from).map_err(system)
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, Shared<BoxFuture<'static, Found>>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Resolver {
    names: Names,
    outside_only: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, outside_only) = (self.names.clone(), self.outside_only);
        Box::pin(async move {
            let mut found = names.find(name.as_str()).await?.to_vec();
            if outside_only {
                found = internal::outside(name.as_str(), found).map_err(NameError::Internal)?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Names whose look-ups end one by one, as the test lets them; beside them, how many have begun.
    fn slow() -> (Names, mpsc::SyncSender<()>, Arc<AtomicUsize>) {
        let (let_go, wait) = mpsc::sync_channel(1);
        let (wait, begun) = (Mutex::new(wait), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&begun);
        let names = Names::new(Box::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = wait.lock().unwrap().recv();
            Ok(vec![address("192.0.2.1:0")])
        }));
        (names, let_go, begun)
    }

    async fn until(what: impl Fn() -> bool) {
        let reached = async {
            while !what() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.expect("not reached");
    }

    #[tokio::test]
    async fn silent_name_servers_take_a_few_threads_whoever_has_stopped_waiting() {
        let (names, let_go, begun) = slow();
        let asked: Vec<_> = (0..10 * LOOKUPS_MAX).map(|n| format!("host-{n}.test")).collect();
        let mut waiting: Vec<_> = asked.iter().map(|name| names.find(name).boxed()).collect();
        for waiting in &mut waiting {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        until(|| begun.load(Ordering::SeqCst) == LOOKUPS_MAX).await;
        drop(waiting);
        // A thread that does something else is still to be had, and no further look-up has begun.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), LOOKUPS_MAX);
        drop(let_go);
        until(|| names.0.pending().is_empty()).await;
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_who_wait_and_anew_for_who_comes_later() {
        let (names, let_go, begun) = slow();
        let mut first = names.find("a.test").boxed();
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = names.find("a.test").boxed();
        assert!(second.as_mut().now_or_never().is_none());
        let_go.send(()).unwrap();
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!((&first[..], &second[..]), (&[address("192.0.2.1:0")][..], &first[..]));
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        until(|| names.0.pending().is_empty()).await;
        drop(let_go);
        names.find("a.test").await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn of_a_names_addresses_only_those_outside_are_told_to_who_must_not_come_inside() {
        let found = || vec![address("10.0.0.1:0"), address("1.1.1.1:0")];
        let names = Names::new(Box::new(move |name| match name {
            "none.test" => Err(io::Error::other("no such name")),
            "inside.test" => Ok(found()[..1].to_vec()),
            _ => Ok(found()),
        }));
        let resolve = async |name: &str, outside_only| {
            let addresses = names.resolver(outside_only).resolve(name.parse().unwrap()).await;
            addresses.map(|found| found.collect::<Vec<_>>()).map_err(|error| error.to_string())
        };
        assert_eq!(resolve("both.test", false).await, Ok(found()));
        assert_eq!(resolve("both.test", true).await, Ok(found()[1..].to_vec()));
        assert_eq!(resolve("inside.test", false).await, Ok(found()[..1].to_vec()));
        assert!(resolve("inside.test", true).await.unwrap_err().contains("[[origin]]"));
        assert_eq!(resolve("none.test", true).await, Err("no such name".to_owned()));
    }
}
