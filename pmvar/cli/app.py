"""The commands. Each imports what it needs when it runs, so that `pmvar --help` is quick."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pmvar.types import Executor, Netting, Parameters, Precision, PriceModel, Sampling, SurfaceKind, VolatilitySource

if TYPE_CHECKING:
    from pmvar.io.import_summary import ImportSummary

app = typer.Typer(
    name="pmvar",
    help="Monte Carlo portfolio margin: what a whole account can lose, with a standard error and where it comes from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
importers = typer.Typer(help="Make a book from a venue's option chain.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(importers, name="import")

BookFolder = Annotated[Path, typer.Argument(metavar="BOOK", help="Folder of a book.")]
AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account id.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Chain = Annotated[Path, typer.Argument(metavar="CHAIN", help="Option chain, .csv or .csv.gz.")]
BookOut = Annotated[Path, typer.Option("--out", metavar="BOOK", help="Folder to write the book to.")]

POSITIONS_NEXT = "next: put positions.csv (account_id, instrument_id, quantity) there, or generate some: pmvar populate"

SHOWN = 20
"""Withheld accounts that `validate` names."""


class TableFormat(StrEnum):
    """Format of a run's tables."""

    PARQUET = "parquet"
    CSV = "csv"


@app.command()
def doctor() -> None:
    """Say what this installation has: versions, devices, precision, memory, and what which extra lacks."""
    from pmvar.cli.doctor import report

    typer.echo(report())


@app.command()
def demo(
    out: BookOut,
    accounts: Annotated[int, typer.Option(min=1, help="Number of accounts.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generator.")] = 7,
) -> None:
    """Write the synthetic demo book: made-up markets, instruments and accounts."""
    from pmvar.io.synthetic import synthetic_book

    _print_summary(synthetic_book(out, n_accounts=accounts, seed=seed))


@importers.command()
def deribit(
    chain: Chain,
    out: BookOut,
    at: Annotated[
        str | None, typer.Option(help="RFC 3339 time: the last snapshot at or before it, else the last.")
    ] = None,
) -> None:
    """Coin-settled options, futures and perpetuals from a chain in Deribit's layout."""
    from pmvar.io.import_deribit import import_deribit

    _print_summary(import_deribit(chain, out=out, at=at), then=POSITIONS_NEXT)


@importers.command()
def cboe(chain: Chain, out: BookOut) -> None:
    """S&P 500 options from a chain in CBOE's layout, on the forward of each expiry."""
    from pmvar.io.import_cboe import import_cboe

    _print_summary(import_cboe(chain, out=out), then=POSITIONS_NEXT)


@importers.command()
def span(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="SPAN risk parameter file: XML (.spn) or positional (.pa2); or its .gz."),
    ],
    out: BookOut,
    only: Annotated[str, typer.Option(help="Combined commodities to read of a positional file, with commas.")] = "",
) -> None:
    """Futures, options, prices and vols of a SPAN file."""
    from pmvar.io.import_span import import_span

    chosen = [code.strip() for code in only.split(",") if code.strip()]
    _print_summary(import_span(file, out=out, commodities=chosen), then=POSITIONS_NEXT)


@app.command()
def populate(
    book: BookFolder,
    accounts: Annotated[int, typer.Option(min=1, help="Number of accounts.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generator.")] = 7,
) -> None:
    """Add generated, synthetic accounts (positions and balances) to an imported book."""
    from pmvar.io.populate import populate as add_accounts

    _print_summary(add_accounts(book, n_accounts=accounts, seed=seed))


@app.command()
def validate(book: BookFolder) -> None:
    """Read a book strictly and list every bad row at once; exit code 3 if there is any."""
    from pmvar.io.book import load_book

    loaded = load_book(book)
    portfolio = loaded.portfolio
    typer.echo(
        f"{book} is sound: {portfolio.n_accounts:,} accounts, {portfolio.quantity.nnz:,} positions and balances, "
        f"{len(portfolio.instruments):,} instruments, {len(loaded.model.factors)} factors"
    )
    for flag in loaded.flags:
        typer.echo(f"note: {flag}")
    for factor, reason in loaded.market.quarantined.items():
        typer.echo(f"note: accounts that depend on {factor} will be withheld: {reason}")
    for account, reason in list(portfolio.withheld.items())[:SHOWN]:
        typer.echo(f"note: account {account} will be withheld: {reason}")
    if len(portfolio.withheld) > SHOWN:
        typer.echo(f"note: {len(portfolio.withheld) - SHOWN:,} more accounts will be withheld")


@app.command()
def surface(
    book: BookFolder,
    kind: Annotated[SurfaceKind, typer.Option("--surface", help="What is fitted.")] = SurfaceKind.SVI,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write surface.csv and a figure there.")] = None,
) -> None:
    """Fit smiles free of arbitrage to a book's vols and list how far the quotes are from them."""
    from pmvar.cli.surface import surface_book

    typer.echo(surface_book(book, out, surface=kind))


@app.command()
def run(
    book: BookFolder,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder to publish the run in.")],
    paths: Annotated[int | None, typer.Option(help="Number of scenarios.")] = None,
    level: Annotated[float | None, typer.Option(help="Upper tail of the loss, such as 0.99.")] = None,
    horizon: Annotated[str | None, typer.Option(help="Margin period of risk, such as 2d.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the scenarios.")] = None,
    sampling: Annotated[Sampling | None, typer.Option(help="How scenarios are drawn.")] = None,
    netting: Annotated[Netting | None, typer.Option(help="What to do with duplicate positions.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Precision of instrument P&L.")] = None,
    parameters: Annotated[
        Parameters | None, typer.Option(help="Whether a posterior's uncertainty is in the margin; it is by itself.")
    ] = None,
    plug_in_stress: Annotated[
        bool | None,
        typer.Option(
            "--plug-in-stress", help="Say what that uncertainty adds: the measure without it, for another run's cost."
        ),
    ] = None,
    decorrelation: Annotated[
        float | None, typer.Option(help="Stress: this share of the correlation between underlyings goes.")
    ] = None,
    volatility: Annotated[
        VolatilitySource | None, typer.Option(help="Today's, of the model, or implied by option quotes where higher.")
    ] = None,
    apc: Annotated[
        str | None, typer.Option(help="Tools against procyclical margins: buffer, stressed, floor, with commas; none.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings near a clearing house's method: stans or span2; options come first.")
    ] = None,
    components: Annotated[
        bool | None, typer.Option(help="What each position adds; by itself up to 100,000 accounts.")
    ] = None,
    greeks: Annotated[
        bool | None,
        typer.Option(help="Gradients and the split by spot, vol and time; by itself up to 10,000 accounts."),
    ] = None,
    table_format: Annotated[TableFormat, typer.Option("--format", help="Format of the tables.")] = TableFormat.PARQUET,
    acknowledge: Annotated[list[str] | None, typer.Option(help="Gate to pass, such as account-count.")] = None,
    production: Annotated[
        bool, typer.Option("--production", help="Refuse what is dirty, unpinned, assumed or stale; exit code 4.")
    ] = False,
    memory: Annotated[
        str | None, typer.Option(help="What each process may use, such as 8GiB; default half of the machine's.")
    ] = None,
    executor: Annotated[Executor, typer.Option(help="Where blocks of accounts are computed.")] = Executor.LOCAL,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of Ray; default one for each GPU, without any one for each node.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run that was ended early stood.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the run would take, and compute nothing.")] = (
        False
    ),
    log_json: Annotated[bool, typer.Option("--log-json", help="Progress as JSON lines on standard error.")] = False,
    metrics_file: Annotated[
        Path | None, typer.Option("--metrics", metavar="FILE.prom", help="How the run went, for Prometheus.")
    ] = None,
) -> None:
    """Margin every account of a book: tables, manifest.json and report.html in RUN. Options override book.toml."""
    from pmvar.cli.metrics import metrics
    from pmvar.cli.run import run_book, size_in_bytes

    overrides = {
        "scenarios": paths, "level": level, "horizon": horizon, "seed": seed,
        "sampling": sampling, "netting": netting, "precision": precision, "decorrelation": decorrelation,
        "volatility": volatility, "apc": apc, "parameters": parameters, "plug_in_stress": plug_in_stress,
    }  # fmt: skip
    with metrics(None if dry_run else metrics_file, out, log_json=log_json) as figures:
        summary, figures.exit_code = run_book(
            book,
            out,
            overrides={
                key: value if value is None or isinstance(value, int | float) else str(value)
                for key, value in overrides.items()
            },
            preset=preset,
            components=components,
            greeks=greeks,
            table_format=str(table_format),
            acknowledged=acknowledge or [],
            production=production,
            memory_bytes=None if memory is None else size_in_bytes(memory),
            executor=executor,
            workers=workers,
            resume=resume,
            dry_run=dry_run,
            log_json=log_json,
            figures=figures,
        )
    typer.echo(summary)
    raise typer.Exit(figures.exit_code)


@app.command()
def accurate(
    book: BookFolder,
    account: AccountId,
    paths: Annotated[int | None, typer.Option(help="Number of scenarios, a multiple of 1,024.")] = None,
    level: Annotated[float | None, typer.Option(help="Upper tail of the loss, such as 0.99.")] = None,
    horizon: Annotated[str | None, typer.Option(help="Margin period of risk, such as 2d.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the scenarios.")] = None,
) -> None:
    """VaR and ES of one account by importance sampling of its own (models gaussian and t). Options override
    book.toml."""
    from pmvar.cli.accurate import accurate_text

    typer.echo(accurate_text(book, account, {"scenarios": paths, "level": level, "horizon": horizon, "seed": seed}))


@app.command()
def compare(
    book: BookFolder,
    out: Annotated[Path, typer.Option("--out", metavar="COMPARE", help="Folder to publish the comparison in.")],
    methods: Annotated[str, typer.Option(help="Names, with commas; mc, the yardstick, is always there.")] = (
        "mc,span,tims,deribit,derive,paradex,okx,aevo,isolated,collateral"
    ),
    span_file: Annotated[
        Path | None,
        typer.Option("--span-file", metavar="FILE", help="SPAN file whose own risk arrays are method span."),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(metavar="CLOSES", help="Daily prices: would each margin have held under the moves of the past?"),
    ] = None,
    vols: Annotated[
        Path | None, typer.Option(help="Daily implied vols of the same assets, as fractions per √year.")
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="First day judged, such as 2020-01-01.")
    ] = None,
    paths: Annotated[int | None, typer.Option(help="Number of scenarios.")] = None,
    level: Annotated[float | None, typer.Option(help="Upper tail of the loss, such as 0.99.")] = None,
    horizon: Annotated[str | None, typer.Option(help="Margin period of risk, such as 2d.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the scenarios.")] = None,
    table_format: Annotated[TableFormat, typer.Option("--format", help="Format of the tables.")] = TableFormat.PARQUET,
    log_json: Annotated[bool, typer.Option("--log-json", help="Progress as JSON lines on standard error.")] = False,
) -> None:
    """Margin every account by every method, side by side with the Monte Carlo: tables and report.html in COMPARE."""
    from pmvar.cli.compare import compare_book

    overrides = {"scenarios": paths, "level": level, "horizon": horizon, "seed": seed}
    summary = compare_book(
        book,
        out,
        methods=methods.split(","),
        span_file=span_file,
        history=history,
        vols=vols,
        first=first,
        overrides=overrides,
        table_format=str(table_format),
        log_json=log_json,
    )
    typer.echo(summary)


History = Annotated[
    Path, typer.Argument(metavar="HISTORY", help="Daily prices, wide or long: .csv, .csv.gz or .parquet.")
]
Vols = Annotated[Path | None, typer.Option(help="Daily implied vols of the same assets, as fractions per √year.")]
Assets = Annotated[str | None, typer.Option(help="Assets to use, with commas; else all.")]


@app.command()
def calibrate(
    history: History,
    model: Annotated[
        str, typer.Option(
            help="gaussian, t, t-multi, t-garch, t-jump, t-garch-jump, merton, kou, fhs, historical, heston, svcj; "
            "with a filter, as t-garch:ewma: gjr (the default), garch, ewma, riskmetrics."
        )
    ],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="File to write: model.json.")],
    vols: Vols = None,
    assets: Assets = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Last day used, such as 2022-11-01; else the last.")
    ] = None,
    window: Annotated[str | None, typer.Option(help="How far back, such as 4y or 1000d; else all.")] = None,
    stressed: Annotated[
        str | None,
        typer.Option(help="Days of the stressed volatility, such as 2020-02-15..2020-06-15; else the worst 250 moves."),
    ] = None,
    assume_vols: Annotated[bool, typer.Option(help="An assumed vol factor where there is no history of vols.")] = True,
    bayes: Annotated[bool, typer.Option("--bayes", help="Sample the posterior of volatility filters, too.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampler.")] = 1,
    override: Annotated[list[str] | None, typer.Option(help="Gate to pass all the same, such as tail-ess.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Page to write: what was fitted, how sure, does it fit. HTML.")
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Progress as JSON lines on standard error.")] = False,
) -> None:
    """Fit a model to histories of prices and implied vols, and write the model.json that a run uses."""
    from pmvar.cli.calibrate import calibrate_history

    chosen = assets.split(",") if assets else None
    summary = calibrate_history(
        history, vols, out, model, chosen, as_of, window, assume_vols=assume_vols, stressed=stressed,
        bayes=bayes, seed=seed, overrides=override or [], report=report, log_json=log_json,
    )  # fmt: skip
    typer.echo(summary)


@app.command()
def backtest(
    history: History,
    model: Annotated[
        str, typer.Option(help="Models, with commas: those of calibrate, and evt, filtered history with a Pareto tail.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="BACKTEST", help="Folder to publish the backtest in.")],
    first: Annotated[str, typer.Option("--from", help="First day forecast, such as 2020-01-01.")],
    vols: Vols = None,
    assets: Assets = None,
    book: Annotated[Path | None, typer.Option(help="Book whose accounts are margined; else textbook ones.")] = None,
    level: Annotated[float, typer.Option(help="Upper tail of the loss, such as 0.99.")] = 0.99,
    horizon: Annotated[str, typer.Option(help="Days of each forecast, such as 1d.")] = "1d",
    window: Annotated[int, typer.Option(help="Moves that parameters are fitted on.")] = 1000,
    recalibrate: Annotated[int, typer.Option(help="Steps after which parameters are fitted again.")] = 20,
    paths: Annotated[int, typer.Option(help="Scenarios of each forecast.")] = 16_384,
    seed: Annotated[int, typer.Option(help="Seed of the scenarios.")] = 1,
    apc: Annotated[
        str, typer.Option(help="Tools against procyclical margins to measure: buffer, stressed, floor, with commas.")
    ] = "none",
    table_format: Annotated[TableFormat, typer.Option("--format", help="Format of the tables.")] = TableFormat.PARQUET,
    log_json: Annotated[bool, typer.Option("--log-json", help="Progress as JSON lines on standard error.")] = False,
) -> None:
    """Would the margin have held? Models known the day before against what came: tables and report.html in BACKTEST."""
    from pmvar.cli.backtest import backtest_history

    options = {"level": level, "window": window, "recalibrate": recalibrate, "n_scenarios": paths, "seed": seed}
    summary = backtest_history(
        history, vols, out, models=model.split(","), assets=assets.split(",") if assets else None, first=first,
        horizon=horizon, book=book, apc=apc, options=options, table_format=str(table_format), log_json=log_json,
    )  # fmt: skip
    typer.echo(summary)


@app.command(name="span-arrays")
def span_arrays(
    book: BookFolder,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="SPAN file (XML) to write.")],
    paths: Annotated[int | None, typer.Option(help="Scenarios that the scan ranges are quantiles of.")] = None,
) -> None:
    """Risk arrays of a book by pmvar's own pricer, as a SPAN file."""
    from pmvar.cli.compare import write_arrays

    typer.echo(write_arrays(book, out, overrides={"scenarios": paths}))


@app.command()
def explain(
    run: RunFolder,
    account: AccountId,
) -> None:
    """Where the margin of one account comes from."""
    from pmvar.io.run import read_run
    from pmvar.report.explain import explain as text

    found = read_run(run)
    typer.echo(text(found.tables, found.manifest, account))


KeyFile = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="File of a secret, 16 bytes or more.")]


@app.command()
def verify(run: RunFolder, key: KeyFile = None) -> None:
    """Whether every file and every row of a run is as it was published; exit code 9 names what is not."""
    from pmvar.io.verify import verify_run

    typer.echo(verify_run(run, key=key))


@app.command()
def export(
    run: RunFolder,
    target: Annotated[str, typer.Argument(help="postgresql://host/db, duckdb:FILE, or a folder such as s3://bucket/run.")],
    prefix: Annotated[str, typer.Option(help="Of the names of tables in a database.")] = "pmvar_",
) -> None:
    """Put a run, verified first, into a database or an object store; once more changes nothing."""
    from pmvar.io.export import export_run

    typer.echo(export_run(run, target, prefix=prefix))


@app.command()
def fetch(
    address: Annotated[str, typer.Argument(help="Of a book, such as s3://bucket/book.")],
    book: Annotated[Path, typer.Argument(metavar="BOOK", help="Folder to copy it to; a book there is replaced.")],
) -> None:
    """Copy a book from an object store, whole or not at all."""
    from pmvar.io.object_store import fetch_book

    typer.echo(fetch_book(address, book))


@app.command()
def seal(
    run: RunFolder,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="File of a secret, 16 bytes or more.")],
) -> None:
    """Sign a run's manifest with a secret key, so that verify --key notices whoever rewrites the whole run."""
    from pmvar.io.verify import seal_run

    typer.echo(f"sealed: {seal_run(run, key=key)}")


@app.command()
def reproduce(
    run: Annotated[Path, typer.Argument(metavar="MANIFEST", help="manifest.json of a run, or its folder.")],
    book: Annotated[Path | None, typer.Option(metavar="BOOK", help="The book, if it lies elsewhere now.")] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Progress as JSON lines on standard error.")] = False,
) -> None:
    """Make a run again from its manifest and compare every number; exit code 9 names the first that differs."""
    from pmvar.audit.reproduce import reproduce as again
    from pmvar.cli.progress import progress
    from pmvar.cli.run import keep_compiled

    keep_compiled()
    with progress(log_json=log_json) as advance:
        found = again(run, book=book, progress=advance)
    typer.echo(str(found))


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(metavar="RUN1", help="The earlier run.")],
    after: Annotated[Path, typer.Argument(metavar="RUN2", help="The later run.")],
    account: Annotated[str | None, typer.Option(metavar="ACCOUNT", help="One account, step by step.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIFF", help="Folder to publish the table in.")] = None,
    book1: Annotated[Path | None, typer.Option(metavar="BOOK", help="Book of RUN1, if it lies elsewhere now.")] = None,
    book2: Annotated[Path | None, typer.Option(metavar="BOOK", help="Book of RUN2, if it lies elsewhere now.")] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Progress as JSON lines on standard error.")] = False,
) -> None:
    """What changed each account's margin from one run to the next: positions, market, model, time, in this order."""
    from pmvar.cli.diff import diff_runs

    text = diff_runs(
        before, after, before_book=book1, after_book=book2, account=account, out=out, log_json=log_json
    )  # fmt: skip
    typer.echo(text)


@app.command()
def switch(
    book: BookFolder,
    underlying: Annotated[str, typer.Argument(metavar="UNDERLYING", help="Whose price may fall to zero or below.")],
    to: Annotated[PriceModel, typer.Option(help="How its price moves from now on.")],
    out: BookOut,
    shift: Annotated[
        float | None, typer.Option(help="Added to a shifted price; a move of 1 of a Bachelier one. Else today's price.")
    ] = None,
) -> None:
    """Put an underlying under another price model, its options at their prices: a book, and what margins do."""
    from pmvar.cli.switch import switch_text

    typer.echo(switch_text(book, underlying, to=to, out=out, shift=shift))


def _print_summary(summary: ImportSummary, *, then: str = "") -> None:
    counts = ", ".join(f"{n:,} {name}" for name, n in summary.counts.items())
    typer.echo(f"{summary.path}: {counts}")
    for note in summary.notes:
        typer.echo(f"note: {note}")
    if then:
        typer.echo(then)
