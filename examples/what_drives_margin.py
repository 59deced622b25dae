"""One account alone: which positions its margin comes from, and what would change it.

pmvar demo --out book
python examples/what_drives_margin.py book SHORTVOL-0005 [scenarios]
"""

import sys

import numpy as np

import pmvar


def main(book_folder: str, account: str, n_scenarios: int = 16_384) -> None:
    """Print the Euler components of the account's expected shortfall and the gradient of its margin."""
    book = pmvar.load_book(book_folder)
    portfolio = book.portfolio.accounts(np.flatnonzero(book.portfolio.account_id == account))
    scenarios = pmvar.simulate(book.model, book.market, seed=1, n_scenarios=n_scenarios, horizon="2d")
    pnl = pmvar.reprice(portfolio, book.market, scenarios)
    tables = pmvar.margin_report(pnl, portfolio, book.rules).tables

    margin = tables["margins"]["initial_margin"][0]
    print(f"initial margin {margin:,.2f} {book.market.base_currency}")

    part = tables["components"]
    print(f"\n{'position':<24} {'component':>12} {'spot':>12} {'vol':>12} {'time':>12}")
    for i in np.argsort(-np.abs(part["component_es"])):
        row = (part[c][i] for c in ("component_es", "spot_es", "vol_es", "time_es"))
        print(f"{part['instrument_id'][i]:<24} " + " ".join(f"{x:>12,.2f}" for x in row))

    # Delta is per 1 of price, vega per 1.00 of vol, rho per 1.00 of rate.
    greek = tables["greeks"]
    print(f"\n{'margin by':<18} {'':<6} {'value':>14} {'std error':>12}")
    for i in np.flatnonzero(greek["of"] == "margin"):
        name, kind = greek["factor"][i], greek["greek"][i]
        print(f"{name:<18} {kind:<6} {greek['value'][i]:>14,.3f} {greek['standard_error'][i]:>12,.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
