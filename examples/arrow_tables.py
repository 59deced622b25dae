"""Positions from memory instead of a file: any table with an Arrow C stream (pyarrow, pandas, polars, duckdb) will do.

pmvar demo --out book
python examples/arrow_tables.py book [scenarios]
"""

import sys

import pyarrow as pa

import pmvar


def main(book_folder: str, n_scenarios: int = 16_384) -> None:
    """Margin two invented accounts against the market of a book."""
    positions = pa.table(
        {
            "account_id": ["desk", "desk", "desk", "fund"],
            "instrument_id": ["BTC-26JUN26-104000-C", "BTC-26JUN26-104000-P", "BTC-PERPETUAL", "ETH-PERPETUAL"],
            "quantity": [-10.0, -10.0, 20_000.0, 500_000.0],
        }
    )
    balances = pa.table({"account_id": ["desk", "fund"], "asset": ["USD", "ETH"], "amount": [400_000.0, 50.0]})
    book = pmvar.load_book(book_folder, tables={"positions": positions, "balances": balances})

    scenarios = pmvar.simulate(book.model, book.market, seed=1, n_scenarios=n_scenarios, horizon="2d")
    pnl = pmvar.reprice(book.portfolio, book.market, scenarios)
    report = pmvar.margin_report(pnl, book.portfolio, book.rules)

    margins = report.tables["margins"]
    print(f"{'account':<8} {'margin':>10} {'std error':>10} {'equity':>10}  status")
    for i, account in enumerate(margins["account_id"]):
        numbers = [margins[c][i] for c in ("initial_margin", "es_standard_error", "equity")]
        print(f"{account:<8} " + " ".join(f"{x:>10,.0f}" for x in numbers) + f"  {margins['status'][i]}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
