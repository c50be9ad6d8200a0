"""Three departments add up what none of them may show: totals by district and income band, over generated rows."""
