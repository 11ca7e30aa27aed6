"""Servers, sites, money, carbon and programmes over what serving reports."""
