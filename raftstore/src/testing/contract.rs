//! The form of a contract suite: declaring a case registers it, so that none can be forgotten.
//!
//! A suite is a list of (name, function over a fixture); twin and adapter run the same list.

macro_rules! contract {
    ($world:ty; $($(#[$doc:meta])* fn $name:ident($w:ident) $body:block)*) => {
        $($(#[$doc])* fn $name($w: &mut $world) $body)*
        /// Every case, in order of declaration.
        #[allow(clippy::type_complexity, reason = "the form of every suite")]
        pub const CASES: &[(&str, fn(&mut $world))] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use contract;
