"""What a model is sent: the body of a request, in the form that its family accepts."""
