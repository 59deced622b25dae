from pmvar.comparison import compare as compare
from pmvar.engine import MarginReport as MarginReport
from pmvar.engine import margin_report as margin_report
from pmvar.io.book import load_book as load_book
from pmvar.market.snapshot import MarketSnapshot as MarketSnapshot
from pmvar.models.specification import ModelSpecification as ModelSpecification
from pmvar.portfolio import Portfolio as Portfolio
from pmvar.risk.accurate import AccurateMargin as AccurateMargin
from pmvar.risk.accurate import accurate_margin as accurate_margin
from pmvar.risk.rules import MarginRules as MarginRules
from pmvar.scenarios import ScenarioSet as ScenarioSet
from pmvar.scenarios import simulate as simulate
from pmvar.scenarios import stress_scenarios as stress_scenarios
from pmvar.valuation import reprice as reprice

__version__: str
