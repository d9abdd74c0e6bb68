from anabranch.testing.states import StatesContract
from anabranch.testing.store import StoreContract


class TestStore(StoreContract):
    pass


class TestSlotFile(StatesContract):
    pass
