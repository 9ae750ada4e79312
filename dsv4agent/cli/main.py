"""The `dsv4agent` command: its options, and how errors reach the user."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import anyio
import typer

from dsv4agent import __version__
from dsv4agent.cli.exits import KNOWN_ERRORS, ExitCode, code_of_error

app = typer.Typer(
    name="dsv4agent",
    help="A coding agent with a DeepSeek-V4 engine in the same process.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
sessions_app = typer.Typer(help="Stored sessions.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(sessions_app, name="sessions")
bench_app = typer.Typer(help="Measured speed.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench_app, name="bench")
profile_app = typer.Typer(help="Where time goes.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(profile_app, name="profile")

SandboxOption = Annotated[
    Literal["auto", "bubblewrap", "landlock", "container", "none"],
    typer.Option(
        help="How commands are confined; auto takes the strongest that works, none confines nothing."
    ),
]
NetworkOption = Annotated[
    str,
    typer.Option(
        help="off, on, or the hosts that may be reached: pypi.org,*.github.com,localhost:8000 (and so on)."
    ),
]
ModelOption = Annotated[str, typer.Option(help="Name of a bundled model, or a checkpoint folder.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Stop after so many model turns.")]
RepeatsOption = Annotated[
    int | None, typer.Option(min=2, help="Stop when the model has made the same calls so many times.")
]
RedrawsOption = Annotated[
    int | None,
    typer.Option(min=0, help="Draw a turn again, so many times, whose edits leave nothing new."),
]
TokensOption = Annotated[int | None, typer.Option(min=1, help="Stop after so many sampled tokens.")]
TimeOption = Annotated[float | None, typer.Option(min=0.001, help="Stop after so many seconds.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]


@app.command("run")
def run_command(
    task: Annotated[str, typer.Argument(help="What to do.")],
    repo: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="The workspace, the only place that changes.")
    ] = Path(),
    model: ModelOption = "mini",
    mode: Annotated[
        Literal["non-think", "think-high", "think-max"] | None,
        typer.Option(help="How much to reason. Default: what the checkpoint recommends."),
    ] = None,
    profile: Annotated[
        Literal["minimal", "full", "research"],
        typer.Option(help="The agent's tools: shell and editor; all for a repository; web and browser."),
    ] = "minimal",
    sandbox: SandboxOption = "auto",
    network: NetworkOption = "off",
    max_steps: StepsOption = None,
    max_tokens: TokensOption = None,
    max_repeats: RepeatsOption = None,
    redraws: RedrawsOption = None,
    timeout: TimeOption = None,
    temperature: Annotated[float | None, typer.Option(min=0.0)] = None,
    top_p: Annotated[float | None, typer.Option(min=0.001, max=1.0)] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeat a run. Default: drawn, and stored.")] = None,
    check: Annotated[
        str | None, typer.Option(help="Shell command, run in the sandbox, whose success means done.")
    ] = None,
    attempts: Annotated[
        int, typer.Option(min=1, max=20, help="Take a failed try back and try again, so often in all.")
    ] = 1,
    json: JsonOption = False,
) -> None:
    """Give the agent a task in a repository."""
    from dsv4agent.cli.work import Order, parse_network, work

    if attempts > 1 and check is None:
        raise typer.BadParameter("several attempts need --check, which says when to stop")
    order = Order(
        model=model,
        repo=repo,
        task=task,
        mode=mode,
        profile=profile,
        sandbox=sandbox,
        network=parse_network(network),
        max_steps=max_steps,
        max_tokens=max_tokens,
        max_repeats=max_repeats,
        redraws=redraws,
        timeout=timeout,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        check=check,
        attempts=attempts,
        json=json,
    )
    _exit(anyio.run(work, order))


@app.command("resume")
def resume_command(
    session: Annotated[
        str | None, typer.Argument(help="Its id or the start of it. Default: the last used.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Say something first. Default: go on with what is open.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Where its checkpoint is now. Default: where it was.")
    ] = None,
    sandbox: SandboxOption = "auto",
    network: NetworkOption = "off",
    max_steps: StepsOption = None,
    max_tokens: TokensOption = None,
    max_repeats: RepeatsOption = None,
    redraws: RedrawsOption = None,
    timeout: TimeOption = None,
    json: JsonOption = False,
) -> None:
    """Go on with a stored session, exactly where it stood."""
    from dsv4agent.cli.work import Order, parse_network, work
    from dsv4agent.transcript import Transcript, find_session

    folder = find_session(session)
    if model is None:
        stored = Transcript.open(folder, read_only=True)
        stored.close()
        record = stored.header.model
        model = record.name if record.name == "mini" else record.path
    order = Order(
        model=model,
        task=task,
        resume=folder.name,
        sandbox=sandbox,
        network=parse_network(network),
        max_steps=max_steps,
        max_tokens=max_tokens,
        max_repeats=max_repeats,
        redraws=redraws,
        timeout=timeout,
        json=json,
    )
    _exit(anyio.run(work, order))


@sessions_app.command("list")
def sessions_list(json: JsonOption = False) -> None:
    """List the stored sessions, the last used first."""
    from dsv4agent.cli.listings import show_sessions

    show_sessions(as_json=json)


@sessions_app.command("show")
def sessions_show(
    session: Annotated[
        str | None, typer.Argument(help="Its id or the start of it. Default: the last used.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what happened in a session."""
    from dsv4agent.cli.listings import show_session

    show_session(session, as_json=json)


@app.command("models")
def models_command(
    paths: Annotated[list[str] | None, typer.Argument(help="Checkpoint folders to describe as well.")] = None,
    json: JsonOption = False,
) -> None:
    """Describe the models there are."""
    from dsv4agent.cli.listings import show_models

    show_models(paths or [], as_json=json)


@app.command("plan")
def plan_command(
    model: Annotated[
        str, typer.Argument(help="flash, flash-0731, pro, pro-0813, a bundled name, or a checkpoint folder.")
    ],
    gpu: Annotated[float, typer.Option(min=0.0, help="GiB free on each GPU.")],
    host: Annotated[float, typer.Option(min=0.0, help="GiB of host memory that may be pinned.")] = 0.0,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the work.")] = 1,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of each sequence. Default: 131072, or all positions.")
    ] = None,
    sequences: Annotated[int, typer.Option(min=1, help="Sequences at the same time.")] = 1,
    drafter: Annotated[bool, typer.Option("--drafter", help="With the draft module.")] = False,
    packed_scales: Annotated[
        bool,
        typer.Option("--packed-scales/--byte-scales", help="Experts' scales in 4 bits, if shapes allow."),
    ] = True,
    memory_bandwidth: Annotated[float, typer.Option(min=0.001, help="GB/s of a GPU's memory.")] = 4300.0,
    pcie_bandwidth: Annotated[float, typer.Option(min=0.001, help="GB/s from the host.")] = 50.0,
    json: JsonOption = False,
) -> None:
    """Say what a model needs in GPU memory and pinned host memory, before anything is loaded."""
    from dsv4agent.cli.planning import PlanOrder, show_plan

    order = PlanOrder(
        model=model,
        gpu=gpu,
        host=host,
        gpus=gpus,
        context=context,
        sequences=sequences,
        drafter=drafter,
        packed_scales=packed_scales,
        memory_bandwidth=memory_bandwidth,
        pcie_bandwidth=pcie_bandwidth,
    )
    show_plan(order, as_json=json)


ShapeOption = Annotated[str, typer.Option("--model", help="Shapes of flash, flash-0731, pro or pro-0813.")]
LayersOption = Annotated[int | None, typer.Option(min=1, help="Only the first so many layers.")]
ExpertsOption = Annotated[int | None, typer.Option(min=6, help="So many experts in each layer.")]


@bench_app.command("engine")
def bench_engine_command(
    model: ShapeOption = "flash",
    layers: LayersOption = None,
    experts: ExpertsOption = None,
    contexts: Annotated[str, typer.Option(help="Tokens before the decode steps, by commas.")] = "8192",
    widths: Annotated[str, typer.Option(help="Sequences that decode together, by commas.")] = "1,8",
    prefill: Annotated[str, typer.Option(help="Tokens of prefill runs, by commas.")] = "4096",
    routing: Annotated[
        Literal["uniform", "resident"], typer.Option(help="Over all experts, or over those on the card.")
    ] = "uniform",
    transformers: Annotated[
        bool, typer.Option("--transformers", help="Time the library too, on the same weights in this run.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure decoding and prefill on the GPU, with random weights of a model's real shapes."""
    from dsv4agent.cli.benchmarks import bench_engine

    bench_engine(
        model,
        layers,
        experts,
        contexts,
        widths,
        prefill,
        routing=routing,
        transformers=transformers,
        as_json=json,
    )


@profile_app.command("step")
def profile_step_command(
    model: ShapeOption = "flash",
    layers: LayersOption = None,
    experts: ExpertsOption = None,
    context: Annotated[int, typer.Option(min=1, help="Tokens before the step.")] = 8192,
    json: JsonOption = False,
) -> None:
    """List the kernels of one decode step by the time they take."""
    from dsv4agent.cli.benchmarks import profile_step

    profile_step(model, layers, experts, context, as_json=json)


@app.command("doctor")
def doctor_command(json: JsonOption = False) -> None:
    """Try what a run depends on, and say what is missing and how to get it."""
    from dsv4agent.cli.doctor import show_report

    _exit(show_report(as_json=json))


@app.command("version")
def version_command() -> None:
    """Print the version."""
    typer.echo(__version__)


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """A coding agent with a DeepSeek-V4 engine in the same process."""
    context.obj = debug


def run() -> NoReturn:
    """Run the command; the entry point of the console script."""
    debug = "--debug" in sys.argv[1:2]
    try:
        app()
    except KNOWN_ERRORS as error:
        if debug:
            raise
        sys.stderr.write(f"dsv4agent: {error}\n")
        sys.exit(code_of_error(error))
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does. There is nobody left to tell.
        sys.stderr.close()
        sys.exit(ExitCode.NOT_FINISHED)
    sys.exit(ExitCode.OK)


def _exit(code: ExitCode) -> None:
    raise typer.Exit(int(code))


if __name__ == "__main__":
    run()
