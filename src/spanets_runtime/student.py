"""Student's t distribution, without SciPy."""

import math


def student_quantile(probability: float, freedom: int) -> float:
    """Returns the quantile of Student's t, for a probability above a half, to about 1e-6.

    With t = √ν tan θ the density is proportional to cos^(ν-1) θ, which is integrated by Simpson's
    rule and inverted by bisection.
    """

    def area(angle: float, steps: int = 200) -> float:
        points = [math.cos(angle * i / steps) ** (freedom - 1) for i in range(steps + 1)]
        inner = 4 * sum(points[1:-1:2]) + 2 * sum(points[2:-1:2])
        return angle / steps / 3 * (points[0] + inner + points[-1])

    wanted = (2 * probability - 1) * area(math.pi / 2)
    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if area(middle) < wanted else (low, middle)
    return math.sqrt(freedom) * math.tan(low)
