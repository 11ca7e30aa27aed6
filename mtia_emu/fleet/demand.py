"""From work to devices, servers and racks: whole ones, with spares. Each function is one formula.

Functions take floats, arrays of samples, or quantities with units: they hold no factor of a unit.
"""

from __future__ import annotations

import numpy as np

from .quantity import Array, Numbers

NEARLY = 1 - 1e-12  # of a count: what rounding leaves above a whole number asks for no further device
COVERED = 2.326  # standard deviations: with 99 % of normal draws below


def whole(count: Numbers) -> Numbers:
    """Return a count rounded up to whole things."""
    return np.ceil(count * NEARLY)


def devices_needed(
    mean_per_s: Numbers, peak_over_mean: Numbers, reserve_share: Numbers, per_s: Numbers
) -> Numbers:
    """Return the devices that serve the peak hour with a reserve: mean x peak/mean x (1 + reserve) / rate."""
    return whole(mean_per_s * peak_over_mean * (1 + reserve_share) / per_s)


def spares(devices: Numbers, failures_per_year: Numbers, repair_years: Numbers) -> Numbers:
    """Return the devices that stand in for those in repair, enough 99 % of the time.

    Failures come as a Poisson stream, so as many are in repair as a Poisson number of mean devices x failures
    x repair time (Palm's theorem), here by its normal limit: mean + 2.326 sqrt(mean).
    """
    mean = devices * failures_per_year * repair_years
    return whole(mean + COVERED * mean**0.5)


def servers_needed(devices: Numbers, devices_per_server: Numbers) -> Numbers:
    """Return the whole servers that hold so many devices."""
    return whole(devices / devices_per_server)


def servers_per_rack(rack_w: Numbers, server_w: Numbers, places: Numbers) -> Numbers:
    """Return the whole servers that a rack feeds and has room for, 0 where it feeds none."""
    return np.floor(np.minimum(rack_w / server_w, places))


def racks_needed(servers: Numbers, per_rack: Numbers) -> Numbers:
    """Return the whole racks that hold so many servers."""
    return whole(servers / per_rack)


def load_share(mean_per_s: Numbers, devices: Numbers, per_s: Numbers) -> Numbers:
    """Return the mean load of devices, of which there are some: work done over work that they could do."""
    return mean_per_s / (devices * per_s)


def day(mean_per_s: float, peak_over_mean: float, shape: tuple[float, ...] | None) -> Array:
    """Return the work of each of 24 hours, [24], of that mean and that peak.

    The shape is stretched about its mean until its highest hour is the peak; without one it is a cosine with
    its peak at 20 h. Hours below 0 are cut to 0 and the rest scaled to keep the mean.
    """
    hours = np.arange(24)
    given = np.asarray(shape) if shape is not None else 1 + np.cos((hours - 20) * 2 * np.pi / 24)
    relative = given / given.mean()
    top = relative.max() - 1
    if top <= 0 or peak_over_mean == 1:
        return np.full(24, mean_per_s)
    stretched = np.maximum(1 + (relative - 1) * (peak_over_mean - 1) / top, 0)
    return np.asarray(mean_per_s * stretched / stretched.mean())
