//! What Tab offers: commands, names, rooms, files, messages and paths. Pure.

use super::{
    commands::{self, Arg, COMMANDS},
    text::Label,
};

/// Offers shown at most.
pub(super) const MAX_OFFERS: usize = 50;

/// What can be completed with, newest or most likely first.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) rooms: Vec<String>,
    pub(super) people: Vec<String>,
    pub(super) files: Vec<(String, String)>,
    pub(super) messages: Vec<(String, String)>,
    pub(super) paths: Vec<String>,
}

/// One offer: it replaces the last `replaces` bytes before the cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) insert: String,
    pub(super) replaces: usize,
    pub(super) shown: String,
    pub(super) help: String,
}

/// Which offer is chosen, and whether any are shown.
#[derive(Debug, Default)]
pub(super) struct Palette {
    pub(super) offers: Vec<Offer>,
    pub(super) selected: usize,
    /// Shown by Tab where it does not open by itself; a closed one stays closed until the line changes.
    pub(super) is_forced: bool,
    pub(super) is_closed: bool,
}

impl Palette {
    pub(super) fn is_open(&self, line: &str) -> bool {
        !self.is_closed && !self.offers.is_empty() && (self.is_forced || line.starts_with('/'))
    }

    /// The line changed.
    pub(super) fn refresh(&mut self, offers: Vec<Offer>) {
        *self = Self { offers, ..Self::default() };
    }

    pub(super) fn up(&mut self) {
        self.selected = self.selected.checked_sub(1).unwrap_or(self.offers.len().saturating_sub(1));
    }

    pub(super) fn down(&mut self) {
        self.selected = if self.selected + 1 < self.offers.len() { self.selected + 1 } else { 0 };
    }

    pub(super) fn chosen(&self) -> Option<&Offer> {
        self.offers.get(self.selected)
    }
}

/// The argument that is being written, and what of it stands there.
fn argument(before: &str) -> Option<(Arg, &str)> {
    let (name, rest) = before.strip_prefix('/')?.split_once(' ')?;
    let args = commands::find(name)?.args;
    let at = rest.split_whitespace().count() - usize::from(!rest.is_empty() && !rest.ends_with(' '));
    let word = rest.rsplit(' ').next().unwrap_or_default();
    let arg = *args.get(at).or(args.last().filter(|arg| **arg == Arg::Path))?;
    // A path goes on to the end of the line, with its spaces.
    let is_path = arg == Arg::Path || (arg == Arg::ToOrPath && !word.starts_with(['@', '#', '&']));
    let first = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
    let path = match rest.get(first..).unwrap_or_default() {
        path if path.starts_with(['@', '#', '&']) || args.first() == Some(&Arg::File) => {
            path.split_once(' ').map_or("", |(_, path)| path)
        }
        path => path,
    };
    Some(if is_path { (Arg::Path, path) } else { (arg, word) })
}

/// The beginning of a path, if one is being written.
pub(super) fn path(before: &str) -> Option<&str> {
    argument(before).filter(|(arg, _)| *arg == Arg::Path).map(|(_, path)| path)
}

/// Whether the letters of `typed` occur in `name` in this order; fewer letters between them are better.
fn distance(name: &str, typed: &str) -> Option<usize> {
    let mut letters = name.chars().flat_map(char::to_lowercase).enumerate();
    let (mut last, mut between) = (None, 0);
    for wanted in typed.chars().flat_map(char::to_lowercase) {
        let (at, _) = letters.find(|(_, c)| *c == wanted)?;
        between += last.map_or(at * 4, |last: usize| at - last - 1);
        last = Some(at);
    }
    Some(between)
}

/// What fits what stands before the cursor, the best first.
pub(super) fn offers(before: &str, known: &Known) -> Vec<Offer> {
    if let Some(typed) = before.strip_prefix('/')
        && !typed.contains([' ', '/', '\n'])
    {
        let fits = COMMANDS.iter().filter_map(|spec| {
            let by_short = (!spec.short.is_empty() && spec.short == typed).then_some(0);
            by_short.or_else(|| distance(spec.name, typed)).map(|distance| (distance, spec))
        });
        let mut fits: Vec<_> = fits.collect();
        fits.sort_by_key(|(distance, _)| *distance);
        let offer = |spec: &commands::Spec| Offer {
            insert: format!("/{}{}", spec.name, if spec.args.is_empty() { "" } else { " " }),
            replaces: before.len(),
            shown: format!("/{} {}", spec.name, spec.usage),
            help: spec.help.to_owned(),
        };
        return fits.into_iter().map(|(_, spec)| offer(spec)).collect();
    }
    match argument(before) {
        Some((arg, word)) => arguments(arg, word, known),
        None if before.starts_with('/') => Vec::new(),
        None => {
            let word = before.rsplit(char::is_whitespace).next().unwrap_or_default();
            let is_named = word.starts_with(['@', '#', '&']);
            let all = known.people.iter().chain(&known.rooms).filter(|_| !word.is_empty());
            let shown =
                all.map(|name| (if is_named { name.clone() } else { name.trim_start_matches('@').to_owned() }, ""));
            named(word, shown)
        }
    }
}

fn arguments(arg: Arg, word: &str, known: &Known) -> Vec<Offer> {
    let plain = |names: &[String]| names.iter().map(|name| (name.clone(), "")).collect::<Vec<_>>();
    let described = |pairs: &[(String, String)]| {
        let fits = pairs.iter().filter(|(id, _)| id.starts_with(word)).map(|(id, help)| Offer {
            insert: format!("{id} "),
            replaces: word.len(),
            shown: id.chars().take(12).collect(),
            help: help.clone(),
        });
        fits.take(MAX_OFFERS).collect()
    };
    match arg {
        Arg::Person => named(word, plain(&known.people).into_iter()),
        Arg::Room => named(word, plain(&known.rooms).into_iter()),
        Arg::ToOrPath => named(word, plain(&known.people).into_iter().chain(plain(&known.rooms))),
        Arg::Word(words) => named(word, words.iter().map(|word| ((*word).to_owned(), ""))),
        Arg::File => described(&known.files),
        Arg::Message => described(&known.messages),
        Arg::Path => {
            let fits = known.paths.iter().filter(|path| path.starts_with(word)).map(|path| Offer {
                insert: path.clone(),
                replaces: word.len(),
                shown: path.clone(),
                help: String::new(),
            });
            fits.take(MAX_OFFERS).collect()
        }
        Arg::Free => Vec::new(),
    }
}

/// Names that begin as the word does, with or without their mark.
fn named<'a>(word: &str, names: impl Iterator<Item = (String, &'a str)>) -> Vec<Offer> {
    let bare = |name: &str| name.trim_start_matches(['@', '#', '&']).to_lowercase();
    let mark = word.chars().next().filter(|c| "@#&".contains(*c));
    let fits = names.filter(|(name, _)| {
        // What would not come back the same way is not offered.
        let is_plain = *Label::new(name) == **name && !name.contains(char::is_whitespace);
        is_plain && bare(name).starts_with(&bare(word)) && mark.is_none_or(|mark| name.starts_with(mark))
    });
    let offer = |(name, help): (String, &str)| Offer {
        insert: format!("{name} "),
        replaces: word.len(),
        shown: name,
        help: help.to_owned(),
    };
    fits.map(offer).take(MAX_OFFERS).collect()
}
