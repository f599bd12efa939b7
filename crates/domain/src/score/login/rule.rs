//! Rules of a policy: conditions in CEL, the Common Expression Language, each with its consequence.
//!
//! A rule is written by a tenant and runs in every score, so it is checked when it is read and not monitored when it
//! runs: the source, the nodes, the depth and the loops of an expression have limits that keep every evaluation short.
//! Every [`Rule`] was parsed, uses only [`VARIABLES`](super::variables::VARIABLES), and had each of its parts evaluated
//! on samples without a type error. Errors that depend on values are still possible, such as a division by zero: such a
//! rule does not match, and the answer reports that it failed.

use super::signal::settings::{Switch, is_factor};
use super::variables::{self, Variables};
use crate::score::{LoginDecision, ReasonCode};
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, operators};
use cel::{Context, ExecutionError, ParseError, ParseErrors, Program, Value};
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

/// Longest expression, in bytes.
pub const SOURCE_BYTES_MAX: usize = 1_024;
/// Most nodes of an expression, after expansion of its macros.
pub(crate) const NODES_MAX: usize = 256;
/// How deep the nodes of an expression may be nested.
pub(crate) const DEPTH_MAX: usize = 32;
/// Most elements of a list or map literal in an expression.
pub(crate) const ELEMENTS_MAX: usize = 64;
/// How deep brackets may be nested: parsers recurse for each of them.
const BRACKETS_DEPTH_MAX: usize = 16;
/// Longest code, in bytes.
const CODE_BYTES_MAX: usize = 64;
/// Longest description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 256;

/// A rule as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSource {
    /// Names the reason: capitals, digits and underscores, and different from Foretell's own codes.
    pub code: String,
    /// The condition.
    pub when: String,
    /// Factor on S if the rule matches; either this or `decision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The decision if the rule matches, regardless of the score: deny overrides challenge, and challenge overrides
    /// allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<LoginDecision>,
    /// Whether it counts.
    #[serde(default)]
    pub mode: Switch,
    /// For staff: describes what was observed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A rule that can be evaluated.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "RuleSource", into = "RuleSource")]
pub struct Rule {
    written: RuleSource,
    code: ReasonCode,
    consequence: Consequence,
    program: Arc<Program>,
    has_loop: bool,
}

/// The consequence of a rule that matches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Consequence {
    /// S is multiplied by it.
    Factor(f64),
    /// The decision is this one.
    Decision(LoginDecision),
}

/// Why a rule is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRule(String);

impl From<Rule> for RuleSource {
    fn from(rule: Rule) -> Self {
        rule.written
    }
}

impl TryFrom<RuleSource> for Rule {
    type Error = InvalidRule;

    fn try_from(written: RuleSource) -> Result<Self, InvalidRule> {
        let code = code(&written.code)?;
        let refused = |detail: String| InvalidRule(format!("rule {}: {detail}", written.code));
        if written.description.chars().count() > DESCRIPTION_CHARS_MAX {
            return Err(refused(format!("the description is longer than {DESCRIPTION_CHARS_MAX} characters")));
        }
        let consequence = match (written.factor, written.decision) {
            (Some(factor), None) if is_factor(factor) => Consequence::Factor(factor),
            (Some(_), None) => return Err(refused("the factor must be from 0.0001 to 10000".into())),
            (None, Some(decision)) => Consequence::Decision(decision),
            _ => return Err(refused("it needs either a factor or a decision".into())),
        };
        let program = Arc::new(compiled(&written.when).map_err(|InvalidRule(detail)| refused(detail))?);
        let has_loop = has_loop(program.expression())?;
        Ok(Self { written, code, consequence, program, has_loop })
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.written.fmt(f)
    }
}

/// Shared, because it is slow to create: every request adds its variables in a scope of its own within this one.
static LANGUAGE: LazyLock<Context<'static, 'static>> = LazyLock::new(Context::default);

impl Rule {
    /// The code of its reason.
    pub fn code(&self) -> &ReasonCode {
        &self.code
    }

    /// Whether it counts.
    pub fn mode(&self) -> Switch {
        self.written.mode
    }

    /// The consequence if it matches.
    pub(crate) fn consequence(&self) -> Consequence {
        self.consequence
    }

    /// Whether its evaluation iterates over a list or a map, which takes a thousand times as long as one that does not.
    pub(crate) fn has_loop(&self) -> bool {
        self.has_loop
    }

    /// What was observed if it matches.
    pub fn description(&self) -> &str {
        match self.written.description.as_str() {
            "" => "A rule of the policy applies.",
            described => described,
        }
    }

    /// Whether it matches; none if it could not be evaluated.
    pub fn matches(&self, variables: &Variables<'_>) -> Option<bool> {
        let mut scope = LANGUAGE.new_inner_scope();
        scope.set_variable_resolver(variables);
        // An arithmetic operation that the interpreter does not check must not fail the request.
        match catch_unwind(AssertUnwindSafe(|| self.program.execute(&scope))) {
            Ok(Ok(Value::Bool(holds))) => Some(holds),
            _ => None,
        }
    }
}

fn code(name: &str) -> Result<ReasonCode, InvalidRule> {
    let is_word = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let is_name = name.bytes().all(is_word) && name.starts_with(|first: char| first.is_ascii_uppercase());
    if !is_name || name.len() > CODE_BYTES_MAX {
        return Err(InvalidRule(format!(
            "rule {name:?}: a code consists of at most {CODE_BYTES_MAX} capitals, digits and underscores"
        )));
    }
    if ReasonCode::is_reserved(name) {
        return Err(InvalidRule(format!("rule {name}: the code is one of Foretell's own")));
    }
    Ok(ReasonCode::Rule(name.into()))
}

/// Parses an expression and evaluates it on samples so that no input can do harm: after the limits of its text are
/// checked, which bound how deep the parser recurses, and so that a panic of the parser fails only this call.
fn compiled(source: &str) -> Result<Program, InvalidRule> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(InvalidRule(format!("the expression has {} bytes, more than {SOURCE_BYTES_MAX}", source.len())));
    }
    if brackets_depth(source) > BRACKETS_DEPTH_MAX {
        return Err(InvalidRule(format!("brackets are nested deeper than {BRACKETS_DEPTH_MAX}")));
    }
    catch_unwind(|| checked(source)).unwrap_or_else(|_| Err(InvalidRule("the expression cannot be parsed".into())))
}

/// How deep brackets are nested, those within strings included.
fn brackets_depth(source: &str) -> usize {
    let depths = source.bytes().scan(0_usize, |depth, byte| {
        match byte {
            b'(' | b'[' | b'{' => *depth += 1,
            b')' | b']' | b'}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    depths.max().unwrap_or(0)
}

/// The first error of a compiler, in one line: the errors after it are mostly consequences.
fn first(errors: &ParseErrors) -> String {
    let described = |error: &ParseError| format!("line {}, column {}: {}", error.pos.0, error.pos.1 + 1, error.msg);
    errors.errors.first().map(described).unwrap_or_default()
}

fn checked(source: &str) -> Result<Program, InvalidRule> {
    let program =
        Program::compile(source).map_err(|errors| InvalidRule(format!("syntax error, {}", first(&errors))))?;
    let mut bounds = Bounds::default();
    bounds.walk(program.expression(), 1, &mut Vec::new())?;
    for sample in variables::samples() {
        let mut scope = LANGUAGE.new_inner_scope();
        scope.set_variable_resolver(sample);
        evaluate_parts(program.expression(), &scope)?;
        match program.execute(&scope) {
            Ok(Value::Bool(_)) => {}
            Ok(other) => return Err(InvalidRule(format!("the expression is of type {}, not bool", other.type_of()))),
            Err(error) => only_of_values(&error)?,
        }
    }
    Ok(program)
}

/// Counts the parts of an expression.
#[derive(Default)]
struct Bounds {
    nodes: usize,
}

impl Bounds {
    /// `bound`: the variables of the enclosing loops.
    fn walk<'e>(&mut self, node: &'e IdedExpr, depth: usize, bound: &mut Vec<&'e str>) -> Result<(), InvalidRule> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(InvalidRule(format!("the expression has more than {NODES_MAX} nodes")));
        }
        if depth > DEPTH_MAX {
            return Err(InvalidRule(format!("the expression is nested deeper than {DEPTH_MAX}")));
        }
        match &node.expr {
            Expr::Ident(name) => known(name, bound),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth, bound),
            Expr::Struct(_) => Err(InvalidRule("expressions cannot create messages".into())),
            other => children(other)?.into_iter().try_for_each(|child| self.walk(child, depth + 1, bound)),
        }
    }

    fn comprehension<'e>(
        &mut self,
        comprehension: &'e ComprehensionExpr,
        depth: usize,
        bound: &mut Vec<&'e str>,
    ) -> Result<(), InvalidRule> {
        if !bound.is_empty() {
            return Err(InvalidRule("loops cannot be nested".into()));
        }
        let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } = comprehension;
        self.walk(iter_range, depth + 1, bound)?;
        bound.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
        bound.extend(comprehension.iter_var2.as_deref());
        let parts = [accu_init, loop_cond, loop_step, result];
        parts.into_iter().try_for_each(|part| self.walk(part, depth + 1, bound))?;
        bound.clear();
        Ok(())
    }
}

fn known(name: &str, bound: &[&str]) -> Result<(), InvalidRule> {
    if bound.contains(&name) || variables::find(name).is_some() {
        return Ok(());
    }
    let like = variables::suggest(name).map(|like| format!("; did you mean {like}?")).unwrap_or_default();
    Err(InvalidRule(format!("there is no variable {name}{like}")))
}

/// The direct children of a node; an error if it is a literal with too many elements.
fn children(node: &Expr) -> Result<Vec<&IdedExpr>, InvalidRule> {
    let found: Vec<_> = match node {
        Expr::Call(CallExpr { target, args, .. }) => target.iter().map(AsRef::as_ref).chain(args).collect(),
        Expr::Select(select) => vec![&*select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        _ => Vec::new(),
    };
    if found.len() > ELEMENTS_MAX {
        return Err(InvalidRule(format!("a list has more than {ELEMENTS_MAX} elements")));
    }
    Ok(found)
}

fn has_loop(node: &IdedExpr) -> Result<bool, InvalidRule> {
    if matches!(node.expr, Expr::Comprehension(_)) {
        return Ok(true);
    }
    children(&node.expr)?.into_iter().try_fold(false, |found, child| Ok(found || has_loop(child)?))
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

/// Evaluates every part outside of loops separately, so that a condition cannot hide an error in a part.
fn evaluate_parts(node: &IdedExpr, scope: &Context<'_, '_>) -> Result<(), InvalidRule> {
    if matches!(node.expr, Expr::Comprehension(_)) {
        return Ok(());
    }
    for child in children(&node.expr)? {
        evaluate_parts(child, scope)?;
    }
    match &node.expr {
        Expr::Call(call) if [operators::EQUALS, operators::NOT_EQUALS].contains(&call.func_name.as_str()) => {
            comparable(call, scope)
        }
        Expr::Call(_) | Expr::Select(_) => Value::resolve(node, scope).map_or_else(|e| only_of_values(&e), |_| Ok(())),
        _ => Ok(()),
    }
}

/// Rejects comparisons of two types: they are never equal, so such a comparison is a mistake.
fn comparable(call: &CallExpr, scope: &Context<'_, '_>) -> Result<(), InvalidRule> {
    let sides: Vec<_> = call.args.iter().filter_map(|side| Value::resolve(side, scope).ok()).collect();
    let [left, right] = sides.as_slice() else { return Ok(()) };
    let is_number = |value: &Value| matches!(value, Value::Int(_) | Value::UInt(_) | Value::Float(_));
    let (of_left, of_right) = (left.type_of().to_string(), right.type_of().to_string());
    if of_left == of_right || (is_number(left) && is_number(right)) {
        return Ok(());
    }
    Err(InvalidRule(format!(
        "a value of type {of_left} is compared with a value of type {of_right}, so they are never equal"
    )))
}

/// Ignores errors that depend on values: another attempt may have others.
fn only_of_values(error: &ExecutionError) -> Result<(), InvalidRule> {
    match error {
        ExecutionError::DivisionByZero(_)
        | ExecutionError::RemainderByZero(_)
        | ExecutionError::Overflow(..)
        | ExecutionError::IndexOutOfBounds(_)
        | ExecutionError::NoSuchKey(_)
        | ExecutionError::FunctionError { .. } => Ok(()),
        other => Err(InvalidRule(format!("type error: {other}"))),
    }
}

#[cfg(test)]
mod tests;
