"""Names of curves, without curves."""


class Curve:
    """No curve; libp2p names the class in annotations."""


P256 = Curve()
