"""Where the order domain's schemas lie."""

from pathlib import Path
from typing import Final

SHOP: Final = Path(__file__).parents[3] / "schemas" / "shop"
