use super::*;
use crate::rl::Entry;
use serde_json::json;

/// A learner with its file, which trains on EIDs in order.
struct Trained {
    folder: tempfile::TempDir,
    learner: Learner,
    file: ModelFile,
    eid: u64,
}

fn parameters(patch: Value) -> Parameters {
    let Value::Object(patch) = patch else { panic!("an object") };
    Parameters::default().merged(&patch).expect("good parameters")
}

impl Trained {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let parameters = parameters(json!({"window_size": 2, "actions_n": 3}));
        let (learner, file) = ModelFile::load(folder.path(), parameters).expect("none is fine");
        Self { folder, learner, file, eid: 0 }
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join(storage::MODEL_FILE)
    }

    fn journal(&self) -> PathBuf {
        journal::beside(&self.model())
    }

    fn length(path: &Path) -> u64 {
        path.metadata().map_or(0, |file| file.len())
    }

    /// Trains on states of ten features, each told apart by its number.
    fn train(&mut self, states: impl Iterator<Item = u32>) {
        for n in states {
            let mut state = [0.0; 10];
            state[0] = f64::from(n % 150);
            state[1] = f64::from(n / 150);
            let (action, reward) = (n as usize % 3, 1.0 / f64::from(n + 3));
            let entry = Entry { eid: self.eid, state: state.into(), action, reward };
            self.learner.take(entry);
            self.eid += 1;
        }
        self.file.changed();
    }

    fn save(&self, mode: SaveMode) -> Result<(), StorageError> {
        let snapshot = self.learner.snapshot();
        match self.file.number(&snapshot, mode) {
            Some(number) => self.file.write(number, &snapshot, mode),
            None => Ok(()),
        }
    }

    fn changes(&self) {
        self.save(SaveMode::Changes).expect("saved");
    }

    /// The learner as it begins again from its files.
    fn again(&self) -> (Learner, ModelFile) {
        let posted = Parameters::clone(&self.learner.snapshot().posted);
        ModelFile::load(self.folder.path(), posted).expect("readable")
    }
}

/// All that is learnt, to the last bit.
fn told(learner: &Learner) -> String {
    serde_json::to_string(&learner.snapshot().model().expect("a model")).expect("JSON")
}

#[test]
fn what_changes_is_added_to_the_journal_and_all_of_it_is_read_back() {
    let mut trained = Trained::new();
    trained.train(0..500);
    trained.changes();
    assert!(!trained.journal().exists(), "there was no model that it could be added to");
    let model = std::fs::read(trained.model()).expect("there");
    for n in 0..20 {
        trained.train(n * 30..n * 30 + 40);
        trained.changes();
        assert_eq!(told(&trained.again().0), told(&trained.learner), "save {n}");
    }
    assert_eq!(std::fs::read(trained.model()).expect("there"), model);
    // It is continued after a restart.
    let length = Trained::length(&trained.journal());
    (trained.learner, trained.file) = trained.again();
    trained.train(3..9);
    trained.changes();
    assert_eq!(std::fs::read(trained.model()).expect("there"), model);
    assert!(Trained::length(&trained.journal()) > length);
    assert_eq!(told(&trained.again().0), told(&trained.learner));
    trained.save(SaveMode::Whole).expect("saved");
    assert!(!trained.journal().exists(), "one file has all of it");
    assert_eq!(told(&trained.again().0), told(&trained.learner));
}

#[test]
fn a_minute_of_learning_among_20000_states_writes_less_than_a_mebibyte() {
    let mut trained = Trained::new();
    trained.train(0..20_000);
    trained.changes();
    let model = Trained::length(&trained.model());
    assert!(model > 1 << 20, "as a whole it is long: {model} bytes");
    // A save every 10 s, and 100 calls a second.
    let minute = |trained: &mut Trained, from: u32| {
        let before = Trained::length(&trained.journal());
        for save in 0..6 {
            trained.train((0..1000).map(|n| (from + save * 1000 + n) * 7919 % 20_000));
            trained.changes();
        }
        assert_eq!(Trained::length(&trained.model()), model, "it is not written again");
        Trained::length(&trained.journal()) - before
    };
    let written = [0, 6000].map(|from| minute(&mut trained, from));
    assert!(written.iter().all(|bytes| *bytes < 1 << 20), "{written:?}");
    assert_eq!(told(&trained.again().0), told(&trained.learner));
}

#[test]
fn a_journal_as_long_as_it_may_be_gives_way_to_the_whole() {
    let mut trained = Trained::new();
    trained.train(0..20_000);
    trained.changes();
    let model = std::fs::read(trained.model()).expect("there");
    let mut longest = 0;
    for _ in 0..100 {
        trained.train(0..20_000);
        trained.changes();
        longest = longest.max(Trained::length(&trained.journal()));
        if std::fs::read(trained.model()).expect("there") != model {
            break;
        }
    }
    assert!((1 << 20..=JOURNAL_BYTES_MIN + 200).contains(&longest), "{longest}");
    assert!(!trained.journal().exists());
    assert_eq!(told(&trained.again().0), told(&trained.learner));
}

#[test]
fn wherever_a_crash_cuts_the_journal_the_save_before_counts() {
    let mut trained = Trained::new();
    trained.train(0..30);
    trained.changes();
    trained.train(0..3);
    trained.changes();
    let (first, before) = (Trained::length(&trained.journal()), told(&trained.learner));
    trained.train(40..43);
    trained.changes();
    let whole = std::fs::read(trained.journal()).expect("there");
    for cut in (first as usize..whole.len()).rev() {
        std::fs::write(trained.journal(), &whole[..cut]).expect("written");
        let (learner, file) = trained.again();
        assert_eq!(told(&learner), before, "cut at {cut}");
        // A line that is not whole must not be continued.
        let known = lock(&file.written).known.is_some();
        assert_eq!(known, cut as u64 == first, "cut at {cut}");
    }
}

#[test]
fn a_model_that_was_put_there_by_hand_goes_without_the_journal_of_another() {
    let mut trained = Trained::new();
    trained.train(0..30);
    trained.changes();
    let backup = std::fs::read(trained.model()).expect("there");
    let before = told(&trained.learner);
    trained.train(0..9);
    trained.save(SaveMode::Whole).expect("saved");
    trained.train(0..9);
    trained.changes();
    assert!(trained.journal().exists());
    std::fs::write(trained.model(), backup).expect("written");
    let (learner, file) = trained.again();
    assert_eq!(told(&learner), before);
    (trained.learner, trained.file) = (learner, file);
    trained.train(7..8);
    trained.changes();
    assert_eq!(told(&trained.again().0), told(&trained.learner), "its own begins anew");
}

#[test]
fn what_was_forgotten_is_written_as_a_whole() {
    let mut trained = Trained::new();
    trained.train(0..100);
    trained.changes();
    trained.train(0..9);
    trained.changes();
    trained.learner.reset();
    trained.file.changed();
    trained.changes();
    assert!(!trained.journal().exists());
    assert_eq!(trained.again().0.snapshot().values.states_seen(), 0);
}

#[test]
fn a_model_is_written_once_and_in_order_and_one_that_cannot_be_is_not_forgotten() {
    let mut trained = Trained::new();
    let (file, snapshot) = (&trained.file, trained.learner.snapshot());
    let number = |file: &ModelFile| file.number(&snapshot, SaveMode::Changes);
    assert_eq!(number(file), None, "nothing was learnt yet");
    file.changed();
    let first = number(file).expect("changed");
    file.changed();
    let second = number(file).expect("changed again");
    file.write(second, &snapshot, SaveMode::Changes).expect("written");
    assert_eq!(number(file), None);
    assert_eq!(file.number(&snapshot, SaveMode::Whole), None, "it is there as a whole");
    std::fs::remove_file(trained.model()).expect("written");
    file.write(first, &snapshot, SaveMode::Changes).expect("overtaken");
    assert!(!trained.model().exists(), "the older one is not written");
    let nowhere = ModelFile::new(Path::new("/nonexistent/folder"));
    nowhere.changed();
    let number_there = number(&nowhere).expect("changed");
    assert!(nowhere.write(number_there, &snapshot, SaveMode::Changes).is_err());
    assert!(number(&nowhere).is_some(), "still not there");
    // A journal that somebody else has changed is not continued, but the whole is written.
    trained.train(0..5);
    trained.save(SaveMode::Whole).expect("saved");
    trained.train(0..5);
    trained.changes();
    std::fs::write(trained.journal(), "short").expect("written");
    trained.train(0..5);
    assert!(trained.save(SaveMode::Changes).is_err());
    trained.changes();
    assert_eq!(told(&trained.again().0), told(&trained.learner));
}

#[test]
fn a_model_that_does_not_fit_is_set_aside_and_one_that_cannot_be_read_stops_the_start() {
    let mut trained = Trained::new();
    trained.train(0..9);
    trained.changes();
    trained.train(0..9);
    trained.changes();
    let (folder, path) = (trained.folder.path(), trained.model());
    let load = |parameters| ModelFile::load(folder, parameters);
    let [text, lines] =
        [&path, &trained.journal()].map(|file| std::fs::read_to_string(file).expect("there"));
    let other = parameters(json!({"actions_n": 9}));
    assert!(load(other).is_ok() && !path.exists() && !trained.journal().exists());
    let aside = folder.join("p2pfaas_learner-model.unfit-1.json");
    assert_eq!(std::fs::read_to_string(&aside).expect("kept"), text);
    assert_eq!(std::fs::read_to_string(journal::beside(&aside)).expect("kept"), lines);
    // Put back, it is as it was.
    std::fs::rename(&aside, &path).expect("moved");
    std::fs::rename(journal::beside(&aside), trained.journal()).expect("moved");
    assert_eq!(told(&trained.again().0), told(&trained.learner));
    // The first line fits, the journal then does not.
    let few = parameters(json!({"actions_n": 3, "states_max": 9}));
    trained.train(20..30);
    trained.changes();
    let (learner, _) = ModelFile::load(trained.folder.path(), few).expect("set aside");
    assert_eq!(learner.snapshot().values.states_seen(), 0);
    assert!(!trained.model().exists() && !trained.journal().exists());
    let long = format!("{text}{}", " ".repeat(1 << 20));
    std::fs::write(&path, long).expect("written");
    let small = Parameters { memory_bytes: 1 << 20, ..Parameters::default() };
    let loaded = ModelFile::load(trained.folder.path(), small);
    assert!(loaded.is_ok() && !path.exists(), "it is too long");
    std::fs::write(&path, "{").expect("written");
    let loaded = ModelFile::load(trained.folder.path(), Parameters::default());
    let error = loaded.err().expect("no JSON");
    assert!(error.to_string().contains(storage::MODEL_FILE));
}
