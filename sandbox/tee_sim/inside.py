"""What runs inside the jail: reads the job, calls the merchant's code, writes its tables. Run by file name.

    in/job.json             {"form", "entry", "sql", "mapping", "tables": [name, ...]}
    in/params               JSON, the job's parameters
    in/tables/<n>.arrow     table n of the list, Arrow IPC file, mapped into memory, not copied
    in/program/             the bundle
    out/<name>.arrow        Arrow IPC streams, written here

Shapes:   python  ``run(tables: dict[str, pyarrow.Table], params: dict) -> dict[str, pyarrow.Table | DataFrame]``
          onnx    mapping {"input": table, "features": [...], "outputs": {column: output or [output, index]},
                  "keep": [...]} -> table ``result``
          sql     one statement over the tables -> table ``result``
Security: merchant code runs in this very process and can change everything here. Nothing in it is secret, and
          nobody believes what it says: what is written is judged outside. It starts after ``ready``.
Not here: the walls; it needs nothing of the ``sandbox`` package, which does not exist where it runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import sys
import traceback
from typing import Any

READY = 3  # the handle on which this process says that it waits
ROWS_AT_ONCE = 1 << 18  # of a model's input
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def main() -> None:
    """Get everything ready, wait for the word, run, and end without exit handlers."""
    source, target, site, cores, memory_mib, preload = sys.argv[1:7]
    sys.path.append(site)
    for name in filter(None, preload.split(",")):
        importlib.import_module(name)
    import pyarrow

    pyarrow.set_cpu_count(int(cores))
    pyarrow.set_io_thread_count(1)
    os.write(READY, b"1")
    os.close(READY)
    if os.read(0, 1) != b"g":
        os._exit(3)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    code = 1
    try:
        with open(f"{source}/job.json", encoding="utf-8") as file:
            job: dict[str, Any] = json.load(file)
        with open(f"{source}/params", "rb") as file:
            params = json.loads(file.read() or b"{}")
        job.update(program=f"{source}/program", cores=int(cores), memory_mib=int(memory_mib))
        forms = {"python": run_python, "onnx": run_onnx, "sql": run_sql}
        tables = {name: _open(f"{source}/tables/{number}.arrow") for number, name in enumerate(job["tables"])}
        results = forms[job["form"]](job, tables, params)
        if not isinstance(results, dict):
            raise TypeError("run() returns a dict of tables")
        for name, result in results.items():
            _write(target, name, result)
        code = 0
    except SystemExit as error:
        print(f"the program ended itself with {error.code!r}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_python(job: dict[str, Any], tables: dict[str, Any], params: dict[str, Any]) -> Any:
    """Call ``run`` of the bundle's entry file."""
    folder = job["program"]
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("merchant_model", os.path.join(folder, job["entry"]))
    if spec is None or spec.loader is None:
        raise ImportError("the entry is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.run(tables, params)


def run_onnx(job: dict[str, Any], tables: dict[str, Any], params: dict[str, Any]) -> Any:
    """Score one table with an ONNX model."""
    import numpy
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    import pyarrow

    onnxruntime.disable_telemetry_events()
    mapping = job["mapping"]
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = job["cores"]
    settings.inter_op_num_threads = 1
    path = os.path.join(job["program"], job["entry"])
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    entrance = session.get_inputs()[0]
    number = numpy.float64 if entrance.type == "tensor(double)" else numpy.float32
    wanted = {name: (o, None) if isinstance(o, str) else tuple(o) for name, o in mapping["outputs"].items()}
    outputs = sorted({output for output, _ in wanted.values()})
    table = tables[mapping["input"]]
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        part = table.slice(start, ROWS_AT_ONCE)
        matrix = numpy.empty((part.num_rows, len(mapping["features"])), dtype=number)
        for place, feature in enumerate(mapping["features"]):
            matrix[:, place] = part.column(feature).to_numpy()
        answers = dict(zip(outputs, session.run(outputs, {entrance.name: matrix}), strict=True))
        for name, (output, index) in wanted.items():
            columns[name].append(_one_column(answers[output], index))
    kept = {name: table.column(name) for name in mapping.get("keep", [])}
    made = {name: pyarrow.chunked_array(parts or [pyarrow.array([], "float32")]) for name, parts in columns.items()}
    return {"result": pyarrow.table({**kept, **made})}


def _one_column(answer: Any, index: Any) -> Any:
    """Return one number a row, whatever shape the model answers in."""
    import numpy
    import pyarrow

    if isinstance(answer, list):  # a map a row, as scikit-learn's converters make for probabilities
        return pyarrow.array([row[index] for row in answer])
    values = numpy.asarray(answer)
    if values.ndim > 1:
        values = values.reshape(len(values), -1)[:, 0 if index is None else index]
    return pyarrow.array(values)


def run_sql(job: dict[str, Any], tables: dict[str, Any], params: dict[str, Any]) -> Any:
    """Answer one statement with DuckDB, which can reach nothing but the tables."""
    import duckdb

    config: dict[str, Any] = {
        "threads": str(job["cores"]),
        "memory_limit": f"{max(32, job['memory_mib'] * 6 // 10)}MiB",
        "python_enable_replacements": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    with duckdb.connect(":memory:", config=config) as connection:
        for name, table in tables.items():
            connection.register(name, table)
        for setting in ("temp_directory = ''", "enable_external_access = false", "lock_configuration = true"):
            connection.execute(f"SET {setting}")
        return {"result": connection.execute(job["sql"]).to_arrow_table()}


def _open(path: str) -> Any:
    import pyarrow

    return pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()


def _write(folder: str, name: object, result: Any) -> None:
    import pyarrow

    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError("the name of an output is a short lower-case word")
    if not isinstance(result, pyarrow.Table):
        result = pyarrow.Table.from_pandas(result, preserve_index=False)
    plain = result.replace_schema_metadata(None)
    with (
        open(os.path.join(folder, f"{name}.arrow"), "xb") as file,
        pyarrow.ipc.new_stream(file, plain.schema) as stream,
    ):
        stream.write_table(plain)


if __name__ == "__main__":
    main()
