//! The rules of the repository, as tests: budgets, which crate may know which, what is imported where. A rule that is only
//! written down does not hold.

mod tidy {
    pub(crate) mod source;

    mod budgets;
    mod dependencies;
    mod imports;
    mod shape;
}
