(module (memory 1 65536 shared) (func (export "_start")))
