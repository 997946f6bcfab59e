//! Reads the machines and tasks of a recorded cluster in the form of openb (github.com/alibaba/clusterdata, cluster-trace-gpu-v2023): two
//! files with commas and a header line. Knows the columns and what may be in them.

use crate::trace::fit::{Need, Room};
use protocol::devices::SINGLES_MAX;
use std::fmt;
use std::path::{Path, PathBuf};

/// Kinds of machines that are told apart.
const KINDS_MAX: usize = 64;
/// Most of anything in a field: sums over all tasks fit.
const AMOUNT_MAX: u64 = 1 << 40;

/// A task of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What it needs.
    pub need: Need,
    /// Its class of service, as it is written.
    pub qos: String,
    /// When it was asked for, in seconds.
    pub created_s: u64,
    /// When it began to run, in seconds; `None` where it never did.
    pub scheduled_s: Option<u64>,
    /// When it was over, in seconds.
    pub deleted_s: u64,
}

/// A cluster and what was asked of it.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its agents, empty, in the order of the file.
    pub agents: Vec<Room>,
    /// The models of their devices; an agent has the bit of its model's place in it.
    pub models: Vec<String>,
    /// Its tasks, in the order of the file.
    pub tasks: Vec<Task>,
}

/// Why a file is not taken.
#[derive(Debug)]
pub enum ReadError {
    /// It could not be read.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Its first line does not name this column.
    Column {
        /// Of which file.
        path: PathBuf,
        /// Which.
        column: &'static str,
    },
    /// A field is not what it should be.
    Field {
        /// Of which file.
        path: PathBuf,
        /// In which line, from 1.
        line: usize,
        /// In which column.
        column: &'static str,
        /// What is there.
        text: String,
        /// What should be there.
        wanted: &'static str,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Column { path, column } => write!(f, "{}: the first line does not name a column {column:?}", path.display()),
            Self::Field { path, line, column, text, wanted } => {
                write!(f, "{}:{line}: {column} is {text:?}, and should be {wanted}", path.display())
            }
        }
    }
}

impl std::error::Error for ReadError {}

/// A file in lines and columns.
struct Table<'a> {
    path: &'a Path,
    names: Vec<&'a str>,
    rows: Vec<(usize, Vec<&'a str>)>,
}

/// One line of it.
#[derive(Clone, Copy)]
struct Row<'a> {
    table: &'a Table<'a>,
    line: usize,
    fields: &'a [&'a str],
}

impl<'a> Table<'a> {
    fn new(path: &'a Path, text: &'a str, columns: &[&'static str]) -> Result<Self, ReadError> {
        let mut lines = (1..).zip(text.lines());
        let names: Vec<&str> = lines.next().map(|(_, line)| line.split(',').map(str::trim).collect()).unwrap_or_default();
        if let Some(column) = columns.iter().find(|column| !names.contains(column)) {
            return Err(ReadError::Column { path: path.to_owned(), column });
        }
        let rows = lines.filter(|(_, line)| !line.trim().is_empty());
        let rows = rows.map(|(number, line)| (number, line.split(',').map(str::trim).collect())).collect();
        Ok(Self { path, names, rows })
    }

    fn rows(&'a self) -> impl Iterator<Item = Row<'a>> {
        self.rows.iter().map(|(line, fields)| Row { table: self, line: *line, fields })
    }
}

impl<'a> Row<'a> {
    fn text(self, column: &'static str) -> Result<&'a str, ReadError> {
        let at = self.table.names.iter().position(|name| *name == column);
        let text = at.and_then(|at| self.fields.get(at)).copied();
        text.ok_or_else(|| self.wrong(column, "", "there: the line is too short"))
    }

    fn wrong(self, column: &'static str, text: &str, wanted: &'static str) -> ReadError {
        ReadError::Field { path: self.table.path.to_owned(), line: self.line, column, text: text.to_owned(), wanted }
    }

    fn amount(self, column: &'static str, most: u64, wanted: &'static str) -> Result<u64, ReadError> {
        let text = self.text(column)?;
        text.parse().ok().filter(|amount| *amount <= most).ok_or_else(|| self.wrong(column, text, wanted))
    }
}

/// Reads a list of agents and a list of tasks.
///
/// # Errors
/// [`ReadError`].
pub fn read(agents: &Path, tasks: &Path) -> Result<Trace, ReadError> {
    let text = |path: &Path| std::fs::read_to_string(path).map_err(|error| ReadError::File { path: path.to_owned(), error });
    let (agents_text, tasks_text) = (text(agents)?, text(tasks)?);
    let (agents, models) = read_agents(agents, &agents_text)?;
    let tasks = read_tasks(tasks, &tasks_text, &models)?;
    Ok(Trace { agents, models, tasks })
}

fn read_agents(path: &Path, text: &str) -> Result<(Vec<Room>, Vec<String>), ReadError> {
    let table = Table::new(path, text, &["cpu_milli", "memory_mib", "gpu", "model"])?;
    let (mut agents, mut models): (Vec<Room>, Vec<String>) = (Vec::new(), Vec::new());
    for row in table.rows() {
        let model = row.text("model")?;
        let kind = models.iter().position(|known| known == model).unwrap_or(models.len());
        if kind == models.len() {
            models.push(model.to_owned());
        }
        if kind >= KINDS_MAX {
            return Err(row.wrong("model", model, "one of at most 64"));
        }
        let devices = row.amount("gpu", SINGLES_MAX as u64, "a number of devices up to 16")?;
        let mut milli = [0; SINGLES_MAX];
        milli[..devices as usize].fill(1_000);
        agents.push(Room {
            kinds: 1 << kind,
            cpu_milli: row.amount("cpu_milli", AMOUNT_MAX, "thousandths of a core")?,
            memory_bytes: row.amount("memory_mib", AMOUNT_MAX >> 20, "MiB of memory")? << 20,
            devices: u8::try_from(devices).expect("at most SINGLES_MAX"),
            milli,
        });
    }
    Ok((agents, models))
}

fn read_tasks(path: &Path, text: &str, models: &[String]) -> Result<Vec<Task>, ReadError> {
    let columns =
        ["cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "qos", "creation_time", "deletion_time", "scheduled_time"];
    let table = Table::new(path, text, &columns)?;
    table.rows().map(|row| read_task(row, models)).collect()
}

fn read_task(row: Row<'_>, models: &[String]) -> Result<Task, ReadError> {
    let devices = row.amount("num_gpu", SINGLES_MAX as u64, "a number of devices up to 16")?;
    let milli = if devices == 0 { 0 } else { row.amount("gpu_milli", 1_000, "thousandths of a device, from 1 to 1000")? };
    if devices > 0 && milli == 0 || devices > 1 && milli < 1_000 {
        return Err(row.wrong("gpu_milli", row.text("gpu_milli")?, "1000 of each of several devices, and more than 0 of one"));
    }
    let need = Need {
        devices: u8::try_from(devices).expect("at most SINGLES_MAX"),
        milli: u16::try_from(milli).expect("at most 1,000"),
        kinds: kinds(row, models)?,
        cpu_milli: row.amount("cpu_milli", AMOUNT_MAX, "thousandths of a core")?,
        memory_bytes: row.amount("memory_mib", AMOUNT_MAX >> 20, "MiB of memory")? << 20,
    };
    let seconds = |column| row.amount(column, AMOUNT_MAX, "seconds");
    let (created_s, deleted_s) = (seconds("creation_time")?, seconds("deletion_time")?);
    let scheduled_s = if row.text("scheduled_time")?.is_empty() { None } else { Some(seconds("scheduled_time")?) };
    if deleted_s < scheduled_s.unwrap_or(created_s) || scheduled_s.is_some_and(|at| at < created_s) {
        return Err(row.wrong("deletion_time", row.text("deletion_time")?, "after the start, which is after the creation"));
    }
    Ok(Task { need, qos: row.text("qos")?.to_owned(), created_s, scheduled_s, deleted_s })
}

/// A bit for each model that `gpu_spec` allows; all where it is empty.
fn kinds(row: Row<'_>, models: &[String]) -> Result<u64, ReadError> {
    let spec = row.text("gpu_spec")?;
    if spec.is_empty() {
        return Ok(u64::MAX);
    }
    let named = spec.split('|').filter(|model| !model.is_empty());
    let mut bits = named.map(|model| models.iter().position(|known| known == model).map(|at| 1 << at));
    let bits: Option<u64> = bits.try_fold(0, |all, bit: Option<u64>| bit.map(|bit| all | bit));
    bits.filter(|bits| *bits != 0).ok_or_else(|| row.wrong("gpu_spec", spec, "models that an agent has"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENTS: &str = "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\nn1,96000,393216,8,G2\n\nn2,1000,1,0,\n";
    const HEAD: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n";

    fn tasks(line: &str) -> Result<Vec<Task>, ReadError> {
        let models = read_agents(Path::new("agents"), AGENTS)?.1;
        read_tasks(Path::new("tasks"), &format!("{HEAD}{line}\n"), &models)
    }

    #[test]
    fn agents_and_tasks_are_read() {
        let (agents, models) = read_agents(Path::new("agents"), AGENTS).unwrap();
        assert_eq!(models, ["P100", "G2", ""]);
        assert_eq!((agents[0].each(), agents[0].memory_bytes), (&[1_000, 1_000][..], 262_144 << 20));
        assert_eq!(agents.iter().map(|agent| (agent.kinds, agent.devices)).collect::<Vec<_>>(), [(1, 2), (2, 8), (4, 0)]);
        let read = tasks("t,12000,16384,1,460,G2|P100,LS,Running,5,90,7\nu,100,1,0,0,,BE,Pending,6,9,").unwrap();
        let need = Need { devices: 1, milli: 460, kinds: 0b11, cpu_milli: 12_000, memory_bytes: 16 << 30 };
        assert_eq!(read[0], Task { need, qos: "LS".into(), created_s: 5, scheduled_s: Some(7), deleted_s: 90 });
        assert_eq!((read[1].need.devices, read[1].need.kinds, read[1].scheduled_s), (0, u64::MAX, None));
    }

    #[test]
    fn a_bad_line_is_named_with_what_is_wrong() {
        let cases = [
            ("t,x,1,1,1000,,LS,Running,5,90,7", "tasks:2: cpu_milli is \"x\", and should be thousandths of a core"),
            ("t,1,1,17,1000,,LS,Running,5,90,7", "tasks:2: num_gpu is \"17\", and should be a number of devices up to 16"),
            (
                "t,1,1,1,0,,LS,Running,5,90,7",
                "tasks:2: gpu_milli is \"0\", and should be 1000 of each of several devices, and more than 0 of one",
            ),
            (
                "t,1,1,2,500,,LS,Running,5,90,7",
                "tasks:2: gpu_milli is \"500\", and should be 1000 of each of several devices, and more than 0 of one",
            ),
            ("t,1,1,1,500,H100,LS,Running,5,90,7", "tasks:2: gpu_spec is \"H100\", and should be models that an agent has"),
            ("t,1,1,1,500,,LS,Running,5,4,", "tasks:2: deletion_time is \"4\", and should be after the start, which is after the creation"),
            ("t,-1,1,1,500,,LS,Running,5,90,7", "tasks:2: cpu_milli is \"-1\", and should be thousandths of a core"),
            ("t,1,1,1", "tasks:2: gpu_milli is \"\", and should be there: the line is too short"),
        ];
        for (line, expected) in cases {
            assert_eq!(tasks(line).unwrap_err().to_string(), expected, "{line}");
        }
        let missing = read_agents(Path::new("agents"), "sn,cpu_milli,memory_mib,model\n").unwrap_err();
        assert_eq!(missing.to_string(), "agents: the first line does not name a column \"gpu\"");
        assert!(matches!(read(Path::new("/nowhere"), Path::new("/nowhere")), Err(ReadError::File { .. })));
    }
}
