//! wasmtime with settings that give one result everywhere: fuel as the meter, NaNs canonical, no threads, no relaxed SIMD, one memory,
//! limits that are part of the work. See `docs/examples-deterministic-wasm-execution.md` of wasmtime 48.

use wasmtime::{
    Config, Engine, ExternType, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig,
    ResourceLimiter,
};

use super::wasi::{self, Hosted, Memory, Stop, Wasi};
use crate::core::{
    outcome::{Ending, HostEnd},
    work::{MAX_MODULE, PAGE},
};

/// Bytes of stack for the module's calls. Deeper is a stack overflow, which no host is blamed for.
const STACK: usize = 1 << 20;
/// The largest table. Growing beyond it fails, on every worker.
const MAX_TABLE: usize = 1 << 18;
/// The most tables of a module.
const MAX_TABLES: u32 = 4;
/// Bytes of a small memory that are cleared instead of given back, and of a table.
const KEEP_MEMORY: usize = 64 << 10;
const KEEP_TABLE: usize = 16 << 10;
/// The longest sentence about a module.
const MAX_DETAIL: usize = 500;

/// Why a module does not run at all.
#[derive(Debug, Clone)]
pub(super) struct Unfit {
    pub(super) ending: Ending,
    pub(super) detail: String,
}

impl Unfit {
    fn bad(detail: impl Into<String>) -> Self {
        Self { ending: Ending::BadModule, detail: cut(detail.into()) }
    }
}

/// A module that is ready to start.
pub(super) struct Compiled {
    pub(super) start: InstancePre<State>,
    /// Bytes of memory that it needs at least.
    pub(super) memory_bytes: u64,
    /// Bytes that it takes up.
    pub(super) size: u64,
}

/// What belongs to a run.
pub(super) struct State {
    pub(super) wasi: Wasi,
    pub(super) memory: Option<Memory>,
    pub(super) stop: Option<Stop>,
    pub(super) growth: Growth,
    /// Why the run was interrupted.
    pub(super) interrupted: Option<HostEnd>,
}

impl Hosted for State {
    fn wasi(&mut self) -> &mut Wasi {
        &mut self.wasi
    }

    fn memory(&mut self) -> &mut Option<Memory> {
        &mut self.memory
    }

    fn stopped(&mut self, stop: Stop) {
        self.stop = Some(stop);
    }
}

/// Memory and tables: a limit of the work is the same everywhere and is told to the module; what this host lacks ends the run.
#[derive(Debug)]
pub(super) struct Growth {
    pub(super) memory_bytes: u64,
    pub(super) host_failed: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the host has no memory")]
struct NoMemory;

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired as u64 <= self.memory_bytes && maximum.is_none_or(|maximum| desired <= maximum))
    }

    /// Called for what was allowed above, and where the size is beyond the type of the memory: that alone is no failure of the host.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if error.to_string().contains("exceeds memory type's limits") {
            return Ok(());
        }
        self.host_failed = true;
        Err(wasmtime::Error::new(NoMemory))
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE && maximum.is_none_or(|maximum| desired <= maximum))
    }
}

/// Compiles modules for one process.
pub(super) struct Compiler {
    pub(super) engine: Engine,
    linker: Linker<State>,
}

impl Compiler {
    pub(super) fn new() -> wasmtime::Result<Self> {
        let engine = Engine::new(&config())?;
        let mut linker = Linker::new(&engine);
        wasi::link(&mut linker)?;
        Ok(Self { engine, linker })
    }

    /// Makes a module ready. How long that takes has no bound here: a process around it is killed when it takes too long.
    pub(super) fn compile(&self, bytes: &[u8]) -> Result<Compiled, Unfit> {
        if bytes.len() as u64 > MAX_MODULE {
            return Err(Unfit::bad("the module has more than 64 MiB"));
        }
        Module::validate(&self.engine, bytes).map_err(|error| Unfit::bad(format!("not a valid module: {error:#}")))?;
        let module = Module::new(&self.engine, bytes).map_err(|error| uncompiled(&error))?;
        let known = |import: &str| wasi::FUNCTIONS.iter().any(|function| function.name == import);
        if let Some(import) = module.imports().find(|import| import.module() != wasi::MODULE || !known(import.name())) {
            let (module, name) = (import.module(), import.name());
            return Err(Unfit::bad(format!("the module imports {module}::{name}, which no worker has")));
        }
        match module.get_export("_start") {
            Some(ExternType::Func(ty)) if ty.params().len() == 0 && ty.results().len() == 0 => {}
            _ => return Err(Unfit::bad("the module exports no function `_start` without arguments: it is no command")),
        }
        let Some(ExternType::Memory(memory)) = module.get_export("memory") else {
            return Err(Unfit::bad("the module exports no memory"));
        };
        let start = self.linker.instantiate_pre(&module);
        let start = start.map_err(|error| Unfit::bad(format!("an import is of another type: {error:#}")))?;
        let range = module.image_range();
        let size = (range.end as usize).saturating_sub(range.start as usize) as u64;
        Ok(Compiled { start, memory_bytes: memory.minimum().saturating_mul(PAGE), size })
    }
}

/// A module that is valid, and yet not compiled. Tables and the rest of an instance have limits that are the same on every worker
/// ([`config`]); what else fails is a limit of this compiler.
fn uncompiled(error: &wasmtime::Error) -> Unfit {
    let text = format!("{error:#}");
    if text.contains("does not fit in pooling allocator") {
        return Unfit::bad(format!("the module is too large: {text}"));
    }
    Unfit { ending: Ending::Host(HostEnd::Compile), detail: cut(format!("cannot be compiled: {text}")) }
}

fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    // One run at a time.
    pool.total_core_instances(1).total_memories(1).total_tables(MAX_TABLES).max_memories_per_module(1);
    pool.max_tables_per_module(MAX_TABLES).table_elements(MAX_TABLE).max_memory_size(1 << 32);
    pool.linear_memory_keep_resident(KEEP_MEMORY).table_keep_resident(KEEP_TABLE).max_unused_warm_slots(1);
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config.consume_fuel(true).epoch_interruption(true).max_wasm_stack(STACK);
    config.cranelift_nan_canonicalization(true).wasm_relaxed_simd(false);
    config.wasm_multi_memory(false).wasm_memory64(false).wasm_wide_arithmetic(false).wasm_custom_page_sizes(false);
    config.wasm_backtrace_max_frames(None).memory_reservation(1 << 32).memory_init_cow(true);
    config
}

/// A sentence of bounded length.
pub(super) fn cut(mut text: String) -> String {
    let end = (0..=MAX_DETAIL).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}
