"""The demo's orders: the same for the same seed, of all kinds, and fit for the wire."""

from collections import Counter

from services.demo_orders import ORDERS_FILE, PARKING_ORDERS_FILE, Order, orders, read_orders
from services.inventory.catalogue import CATALOGUE
from services.payments.app import DECLINED
from services.shipping.carriers import CARRIERS, SILENT
from services.shop_models import OrderPlaced
from tests.unit.participants import support

STOCK = {article.sku: article.opening_stock for article in CATALOGUE}


def kind(order: Order) -> str:
    skus = {item["sku"] for item in order["items"]}
    if any(STOCK[sku] == 0 for sku in skus):
        return "sold out"
    if any(order["card_token"].startswith(token) for token in DECLINED):
        return "declined"
    carrier = CARRIERS.get(order["address"]["country"])
    return "not served" if carrier is None else carrier.name


def test_the_file_is_what_its_generator_makes() -> None:
    assert list(read_orders()) == list(orders(300, 1))
    assert ORDERS_FILE.read_text(encoding="utf-8").count("\n") == 300


def test_most_orders_can_complete_and_every_way_to_fail_is_there() -> None:
    kinds = Counter(kind(order) for order in read_orders())
    deliverable = sum(kinds[carrier.name] for carrier in set(CARRIERS.values()))
    assert 190 <= deliverable <= 230
    assert all(kinds[way] >= 5 for way in ("sold out", "declined", "not served"))
    assert all(kinds[carrier.name] >= 5 for carrier in set(CARRIERS.values()) - {SILENT})
    assert kinds[SILENT.name] == 0, "the demo's own orders need nobody"
    limited = sum("tray-walnut-limited" in {item["sku"] for item in order["items"]} for order in read_orders())
    assert limited > STOCK["tray-walnut-limited"]


def test_the_orders_that_need_a_person_are_there_with_others() -> None:
    kinds = Counter(kind(order) for order in read_orders(PARKING_ORDERS_FILE))
    assert kinds[SILENT.name] == 2
    assert sum(kinds.values()) == 6


def test_seeds_differ_and_ids_never_meet() -> None:
    one, other = list(orders(50, 1)), list(orders(50, 2))
    assert one == list(orders(50, 1))
    assert not {order["order_id"] for order in one} & {order["order_id"] for order in other}
    assert len({order["order_id"] for order in one}) == 50


def test_orders_cost_what_their_items_cost_and_fit_their_schema() -> None:
    formats = support.formats(support.registered())
    schema = formats.avro.compile_schema(support.SCHEMAS["shop.orders.OrderPlaced"])
    for order in orders(100, 3):
        assert order["amount_cents"] == sum(item["quantity"] * item["unit_price_cents"] for item in order["items"])
        assert formats.avro.decode(formats.avro.encode(schema, order)).data == order
        assert OrderPlaced.model_validate(order).model_dump(mode="json") == order
