"""Files, read without trusting them and written whole: parameters, arrays, what is kept between runs."""
