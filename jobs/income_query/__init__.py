"""An analyst asks one department about incomes, in SQL: answered next to the rows, in a jail."""
