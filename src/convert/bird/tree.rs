//! Parses tokens into statements and blocks.

use super::token::{Kind, Token};

/// Maximum nesting of blocks.
const MAX_DEPTH: usize = 40;

/// A statement up to its `;`, or up to the end of its block.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    pub(super) line: usize,
    pub(super) last_line: usize,
    pub(super) nodes: Vec<Node>,
}

/// A part of a statement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Token(Token),
    Block(Vec<Statement>),
}

/// The blocks are nested too deeply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooDeep;

struct Parser<'t> {
    tokens: std::iter::Peekable<std::slice::Iter<'t, Token>>,
}

/// All statements of a file.
pub(super) fn statements(tokens: &[Token]) -> Result<Vec<Statement>, TooDeep> {
    let mut parser = Parser { tokens: tokens.iter().peekable() };
    let mut all = Vec::new();
    loop {
        all.extend(parser.block(0)?);
        // A superfluous `}` ends nothing.
        if parser.tokens.next().is_none() {
            return Ok(all);
        }
    }
}

impl Parser<'_> {
    /// The statements up to the `}` of the block, which is not taken.
    fn block(&mut self, depth: usize) -> Result<Vec<Statement>, TooDeep> {
        if depth > MAX_DEPTH {
            return Err(TooDeep);
        }
        let mut statements = Vec::new();
        let mut nodes: Vec<Node> = Vec::new();
        let (mut line, mut last_line) = (0, 0);
        while let Some(token) = self.tokens.peek().copied() {
            if token.is("}") {
                break;
            }
            self.tokens.next();
            if nodes.is_empty() {
                line = token.line;
            }
            last_line = token.line;
            let mut is_done = token.is(";");
            if token.is("{") {
                nodes.push(Node::Block(self.block(depth + 1)?));
                if let Some(end) = self.tokens.next() {
                    last_line = end.line;
                }
                let next = self.tokens.peek();
                is_done = !next.is_some_and(|t| t.word() == Some("else") || t.is(";"));
            } else if !is_done {
                nodes.push(Node::Token(token.clone()));
            }
            if is_done && !nodes.is_empty() {
                statements.push(Statement { line, last_line, nodes: std::mem::take(&mut nodes) });
            }
        }
        if !nodes.is_empty() {
            statements.push(Statement { line, last_line, nodes });
        }
        Ok(statements)
    }
}

impl Statement {
    /// The words up to the first symbol, text or block.
    pub(super) fn words(&self) -> Vec<&str> {
        self.nodes.iter().map_while(|node| node.token()?.word()).collect()
    }

    /// All tokens as written, texts without quotes.
    pub(super) fn plain(&self) -> Vec<&str> {
        self.nodes
            .iter()
            .filter_map(|node| match node {
                Node::Token(Token { kind: Kind::Word(text) | Kind::Text(text), .. }) => Some(text.as_str()),
                Node::Token(Token { kind: Kind::Symbol(symbol), .. }) => Some(*symbol),
                _ => None,
            })
            .collect()
    }

    pub(super) fn block(&self) -> Option<&[Statement]> {
        self.nodes.iter().find_map(|node| match node {
            Node::Block(statements) => Some(statements.as_slice()),
            Node::Token(_) => None,
        })
    }
}

impl Node {
    pub(super) fn token(&self) -> Option<&Token> {
        match self {
            Self::Token(token) => Some(token),
            Self::Block(_) => None,
        }
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.token().and_then(Token::word) == Some(word)
    }

    pub(super) fn is_symbol(&self, symbol: &str) -> bool {
        self.token().is_some_and(|t| t.is(symbol))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::token::tokens, *};

    #[test]
    fn statements_end_with_semicolons_and_blocks() {
        let text = "router id 1.1.1.1; protocol bgp a { ipv4 { import all; }; hold time 9; } if x then { accept; } else reject;";
        let found = statements(&tokens(text).unwrap()).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].block().unwrap().len(), 2);
        assert_eq!(found[1].words(), ["protocol", "bgp", "a"]);
        assert_eq!(statements(&tokens(&"{".repeat(50)).unwrap()), Err(TooDeep));
        assert!(statements(&tokens("} } a;").unwrap()).unwrap().len() == 1);
    }
}
