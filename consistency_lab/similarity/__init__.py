"""How alike are the images that K models make from the same noise?"""
