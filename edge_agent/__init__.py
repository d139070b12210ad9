"""Guardwatch edge agent: reads guards over Modbus, judges them, and delivers what happened without loss."""
