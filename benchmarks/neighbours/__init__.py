"""Two tenants of one server, of which one asks for ten times what it may: does the other notice?"""
