"""A power company and an environment bureau add up what pollution control runs on, by industry."""
