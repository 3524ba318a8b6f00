//! Why a filter, a condition or a step has no counterpart in a policy.

/// The text of each is the end of the line's entry in the report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("policies have no condition like `{0}`")]
    Condition(String),
    #[error("the condition is too deep")]
    ConditionDepth,
    #[error("put parentheses around `||` before `&&`, which have equal precedence in BIRD")]
    Precedence,
    #[error("the condition ends early")]
    ConditionEnd,
    #[error("the function {0} has no counterpart")]
    Function(String),
    #[error("only functions that return a condition, without arguments, have a counterpart")]
    Arguments,
    #[error("the condition is too long")]
    ConditionLength,
    #[error("policies have no negated conditions on paths and communities")]
    Negated,
    #[error("the condition has too many alternatives")]
    Alternatives,
    #[error("too many ranges of prefixes")]
    Ranges,
    #[error("one statement cannot have two such conditions")]
    TwoConditions,

    #[error("filter {0} is not in the input")]
    MissingFilter(String),
    #[error("the filter has too many branches")]
    Branches,
    #[error("it depends on what the filter itself has changed before")]
    ReadsChanged,
    #[error("blocks are too deep")]
    BlockDepth,
    #[error("`if` without `then`")]
    NoThen,
    #[error("put the branches into braces")]
    NoBraces,
    #[error("a route that meets several alternatives would be changed several times")]
    ChangedTwice,
    #[error("policies have no step like `{0}`")]
    Step(String),
}
