//! Files, sockets and listeners as counted handles: the last reference closes.
//!
//! A handle is an index into its implementation's table. Dropping the last clone puts the index on the
//! implementation's list of handles to close, which `poll` empties; an operation under way holds a clone, so nothing
//! is closed under it. A pin on a file is nothing but a clone of its handle.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Which kind of handle was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`File`].
    File,
    /// A [`Socket`].
    Socket,
    /// A [`Listener`].
    Listener,
}

/// Indexes whose last handle was dropped, oldest first; shared by an implementation and its handles.
pub type Dropped = Rc<RefCell<Vec<(Kind, u32)>>>;

struct Inner {
    kind: Kind,
    index: u32,
    dropped: Dropped,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.dropped.borrow_mut().push((self.kind, self.index));
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Rc<Inner>);

        impl $name {
            /// A first handle for the implementation's table entry `index`.
            pub(in crate::io) fn new(index: u32, dropped: &Dropped) -> $name {
                $name(Rc::new(Inner { kind: Kind::$name, index, dropped: dropped.clone() }))
            }

            /// The implementation's table entry.
            pub(in crate::io) fn index(&self) -> u32 {
                self.0.index
            }

            /// True while someone besides this handle holds the same one: another owner or an operation under way.
            pub fn is_shared(&self) -> bool {
                Rc::strong_count(&self.0) > 1
            }

            /// True if both are handles of the same one.
            pub fn is_same(&self, other: &$name) -> bool {
                Rc::ptr_eq(&self.0, &other.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.index)
            }
        }
    };
}

handle! {
    /// An open file.
    File
}
handle! {
    /// A connected stream socket.
    Socket
}
handle! {
    /// A listening socket.
    Listener
}
