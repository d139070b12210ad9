"""The demo's agent configuration reads what the stand-in plant writes."""

from pathlib import Path
from typing import Any

import pytest

from edge_agent.configfile import Document, load
from simulators import plant
from simulators.plant import DEVICES, MACHINES

CONFIG = Path("config/demo/agent.yaml")
PORTS = {"GUARDWATCH_SIM_PORT": "5020", "GUARDWATCH_MQTT_PORT": "1883"}
AT = {
    "running": f"di/{plant.DI_RUN_FB}",
    "zero_speed": f"di/{plant.DI_ZERO_SPEED}",
    "safety_out": f"di/{plant.DI_SAFETY_OUT}",
    "edm_ok": f"di/{plant.DI_EDM_OK}",
    "reset": f"di/{plant.DI_RESET}",
    "start_cmd": f"di/{plant.DI_START}",
    "speed": f"ir/{plant.IR_SPEED}",
    "belt_speed": f"ir/{plant.IR_BELT_SPEED}",
    "mode": f"hr/{plant.HR_MODE}",
    "reset_count": f"hr/{plant.HR_RESET_COUNT}",
}


@pytest.fixture
def config() -> Any:
    document = load(CONFIG, PORTS)
    assert isinstance(document, Document), document
    return document.data


def test_every_machine_and_guard_of_the_plant_is_configured_and_no_other(config: Any) -> None:
    assert {machine: set(section["guards"]) for machine, section in config["machines"].items()} == {
        machine.id: {guard.id for guard in machine.guards} for machine in MACHINES.values()
    }


def test_every_device_is_its_unit_of_the_one_endpoint(config: Any) -> None:
    for device, section in config["devices"].items():
        assert section["url"] == "modbus+tcp://127.0.0.1:5020"
        assert section["unit"] == DEVICES[device].unit
        assert section["cfg_crc"]["approved"] == DEVICES[device].cfg_crc
        assert section["heartbeat"]["at"] == f"hr/{plant.HR_HEARTBEAT}"


def test_machine_signals_lie_where_the_map_has_them(config: Any) -> None:
    for machine, section in config["machines"].items():
        device = MACHINES[machine].device
        for signal, point in section["signals"].items():
            assert point["at"] == f"{device}/{AT[signal]}", f"{machine} {signal}"
        assert section["signals"]["mode"]["map"] == {str(n): m.value for m, n in plant.MODE_VALUES.items()}
        if "speed" in section["signals"]:
            assert section["signals"]["speed"]["rated"] == MACHINES[machine].rated_rpm
        assert section["rundown_s"] * 1000 >= MACHINES[machine].rundown_ms


def test_guard_signals_lie_where_the_map_has_them(config: Any) -> None:
    for machine in MACHINES.values():
        for guard in machine.guards:
            section = config["machines"][machine.id]["guards"][guard.id]
            at = f"{machine.device}/"
            assert section["kind"] == guard.kind.value
            assert [channel["at"] for channel in section["channels"]] == [
                f"{at}di/{n}" for n in guard.channels
            ]
            wired = {
                "bypass": guard.bypass_at is not None and f"di/{guard.bypass_at}",
                "open_count": guard.open_count_at is not None and f"hr/{guard.open_count_at}",
                "locked": guard.has_lock and f"di/{plant.DI_LOCKED}",
                "lock_cmd": guard.has_lock and f"di/{plant.DI_LOCK_CMD}",
            }
            for signal, where in wired.items():
                assert section.get(signal) == ({"at": at + where} if where else None) or (
                    where and section[signal] == {"at": at + where, "type": "uint16"}
                ), f"{machine.id} {guard.id} {signal}"


def test_every_label_is_there_in_both_languages(config: Any) -> None:
    def labels_in(node: Any) -> list[Any]:
        if isinstance(node, dict):
            own = [value for key, value in node.items() if key.endswith("labels")]
            return own + [label for value in node.values() for label in labels_in(value)]
        return []

    found = labels_in(config)
    assert len(found) == 2 + len(config["areas"]) + len(MACHINES) + sum(
        len(m.guards) for m in MACHINES.values()
    )
    assert all(set(label) == {"zh", "en"} and all(label.values()) for label in found)
