"""The main job in Python: from a book in a folder to a published run.

pmvar demo --out book
python examples/quickstart.py book run [scenarios]
"""

import sys

import pmvar


def main(book_folder: str, run_folder: str, n_scenarios: int = 65_536) -> None:
    """Margin every account of the book and publish tables, manifest.json and report.html."""
    book = pmvar.load_book(book_folder)
    scenarios = pmvar.simulate(book.model, book.market, seed=1, n_scenarios=n_scenarios, horizon="2d")
    pnl = pmvar.reprice(book.portfolio, book.market, scenarios)
    report = pmvar.margin_report(
        pnl,
        book.portfolio,
        book.rules,
        stress=pmvar.stress_scenarios(book.stress, book.model, book.market),
        notes=book.flags,
    )
    report.write(run_folder, inputs=book.input_hashes, book=book_folder)

    margins = report.tables["margins"]
    largest = margins["initial_margin"].argsort()[::-1][:5]
    currency = book.market.base_currency
    for i in largest:
        margin, error = margins["initial_margin"][i], margins["es_standard_error"][i]
        print(f"{margins['account_id'][i]:<14} {margin:>12,.0f} ± {error:,.0f} {currency}  {margins['status'][i]}")


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
