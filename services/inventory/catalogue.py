"""What the shop sells, at which price, and how much of it lies in the warehouse when the shop opens."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """One article; prices in cents of a euro."""

    sku: str
    name: str
    unit_price_cents: int
    opening_stock: int


PLENTY: Final = 1_000_000

CATALOGUE: Final = (
    Article(sku="tea-sencha-100g", name="Sencha, 100 g", unit_price_cents=1_290, opening_stock=PLENTY),
    Article(sku="tea-darjeeling-250g", name="Darjeeling, 250 g", unit_price_cents=1_850, opening_stock=PLENTY),
    Article(sku="tea-rooibos-500g", name="Rooibos, 500 g", unit_price_cents=990, opening_stock=PLENTY),
    Article(sku="kettle-steel-1l", name="Steel kettle, 1 l", unit_price_cents=4_900, opening_stock=PLENTY),
    Article(sku="pot-cast-iron", name="Cast-iron tea pot", unit_price_cents=8_450, opening_stock=PLENTY),
    Article(sku="cup-porcelain", name="Porcelain cup", unit_price_cents=1_450, opening_stock=PLENTY),
    # The last dozen: some of those who order it come too late.
    Article(sku="tray-walnut-limited", name="Walnut tray, limited edition", unit_price_cents=12_900, opening_stock=12),
    # Sold out, and still in many a basket.
    Article(sku="whisk-bamboo", name="Bamboo whisk", unit_price_cents=2_200, opening_stock=0),
)
