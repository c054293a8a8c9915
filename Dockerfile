FROM python:3.11-slim

# A user without rights, who owns nothing but the store.
RUN useradd --create-home torchloop && install -d -o torchloop /store /data /balance /ray
WORKDIR /app

# The dependencies change less often than the code: a layer of their own. cuda takes PyTorch's build for NVIDIA GPUs.
ARG TORCHLOOP_TORCH=cpu
COPY environment.py pyproject.toml requirements.lock README.md LICENSE ./
RUN PIP_NO_CACHE_DIR=1 TORCHLOOP_TORCH=$TORCHLOOP_TORCH python environment.py --no-command \
    && .venv/bin/python -m compileall -q -j 0 .venv/lib

COPY models models
COPY training training
COPY service service
RUN PIP_NO_CACHE_DIR=1 python environment.py
# s3, ray, parquet, openvino: several machines, Parquet files, and numeric forms on CPUs. docker build --build-arg EXTRAS=s3,ray .
ARG EXTRAS=""
COPY requirements-dev.lock ./
RUN [ -z "$EXTRAS" ] || .venv/bin/pip install --no-cache-dir --no-build-isolation \
    --constraint requirements.lock --constraint requirements-dev.lock --editable ".[$EXTRAS]"

USER torchloop
ENV PATH=/app/.venv/bin:$PATH
ENV TORCHLOOP_STORE=/store TORCHLOOP_DATA=/data TORCHLOOP_HOST=0.0.0.0 TORCHLOOP_LOG_FORMAT=json PYTHONUNBUFFERED=1
EXPOSE 8000
CMD ["torchloop", "serve"]
